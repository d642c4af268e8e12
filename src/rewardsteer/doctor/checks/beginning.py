"""Check: texts begin with one beginning-of-text token, not two."""

from collections.abc import Iterator

from rewardsteer.data.chat import write_chat
from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest


class Beginning(Check):
    """A template writes beginning-of-text, and a tokenizer may add a second one."""

    name = "beginning-of-text"
    needs_tokens = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        tokenizer, bos = patient.tokenizer, patient.tokenizer.bos_token_id
        if bos is None:
            return
        prompts, responses = patient.read
        rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        if any(row[:2] == [bos, bos] for row in rows):
            once = patient.score_ids(
                [ids[1:] if ids[:2] == [bos, bos] else ids for ids in prompts], responses
            )
            yield self.found(
                "fault", f"texts begin with {tokenizer.bos_token!r} twice: the first text gets "
                f"{patient.rewards[0]:.5g}, and {once[0]:.5g} with one. Remove it from the "
                "template, or use add_special_tokens=false",
                largest_difference=largest(once, patient.rewards),
            )
            return
        template = patient.scorer.template
        if template is not None and template.kind == "chat" and _doubles(tokenizer):
            twice = patient.score_ids([[bos, *ids] for ids in prompts], responses)
            yield self.found(
                "note", "programs that tokenize the text of the chat template begin it with "
                f"{tokenizer.bos_token!r} twice (largest difference "
                f"{largest(twice, patient.rewards):.3g}); here it is written once",
            )
            return
        first = "begin with it once" if rows[0][:1] == [bos] else "begin without it"
        yield self.found("ok", f"texts {first}")


def _doubles(tokenizer: object) -> bool:
    """Whether the tokenizer adds its beginning-of-text to a text that begins with it."""
    text = write_chat(tokenizer, [{"role": "user", "content": "x"}])
    ids = list(tokenizer(text)["input_ids"])  # type: ignore[operator]
    bos = tokenizer.bos_token_id  # type: ignore[attr-defined]
    return ids[:2] == [bos, bos]
