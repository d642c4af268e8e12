"""Check: the padding token, by which transformers' classifiers find the last token of a text."""

from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest


class Padding(Check):
    """transformers takes the reward at the last token that is not the padding token of
    config.json; other programs at the last token."""

    name = "padding token"
    needs_tokens = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        if not patient.folder.architecture.endswith("ForSequenceClassification"):
            return
        tokenizer = patient.tokenizer
        configured = patient.folder.config.get("pad_token_id")
        own = tokenizer.pad_token_id
        name = tokenizer.convert_ids_to_tokens(configured) if isinstance(configured, int) else None
        prompts, responses = patient.written
        skipped = [
            _trailing([*prompt, *response], configured)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        if any(skipped):
            whole = patient.score_ids(prompts, responses)
            difference = largest(whole, patient.rewards)
            yield self.found(
                "fault", f"texts end with {name!r} (id {configured}), which is the padding token "
                f"too, so transformers takes the reward {max(skipped)} token early: "
                f"{patient.rewards[0]:.5g} for the first text. vLLM, SGLang and OpenRLHF take it "
                f"at the last token: {whole[0]:.5g}. Give the model a separate padding token "
                "(pad_token_id in config.json and in the tokenizer)",
                tokens_early=max(skipped), largest_difference=difference,
            )
        elif configured is None or own is None:
            where = "config.json" if configured is None else "the tokenizer"
            yield self.found(
                "note", f"{where} has no padding token, so transformers refuses batches of several "
                "texts; rewards here need none",
            )
        elif configured != own:
            yield self.found(
                "fault", f"config.json names {name!r} (id {configured}) as padding token and the "
                f"tokenizer {tokenizer.pad_token!r} (id {own}), so transformers takes the reward "
                "of a shorter text in a batch at a padding token. Make the two equal",
            )
        elif configured == tokenizer.eos_token_id:
            yield self.found(
                "note", f"padding and end-of-text are the same token ({name!r}). Texts end "
                "with another token, so the reward is taken at their end; older versions of "
                "transformers take it before the first padding token",
            )
        else:
            yield self.found("ok", f"no text ends with {name!r} (id {configured})")


def _trailing(ids: list[int], token: int | None) -> int:
    """How many tokens of this kind a row ends with."""
    count = 0
    while count < len(ids) and ids[-1 - count] == token:
        count += 1
    return count
