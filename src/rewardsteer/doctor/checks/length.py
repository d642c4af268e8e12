"""Check: texts fit into the limits of model and tokenizer, so that no program cuts them."""

from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest

# transformers writes a number beyond this where a tokenizer states no limit.
_NO_LIMIT = 10**9


class Length(Check):
    """A truncated text loses its end (or its prompt), and gets the reward of what is left."""

    name = "length"
    needs_tokens = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        positions, refused = patient.positions, patient.refused
        stated = patient.tokenizer.model_max_length
        limit = stated if stated < _NO_LIMIT else None
        rows = zip(*patient.written, strict=True)
        longest = max(len(prompt) + len(response) for prompt, response in rows)
        figures = {"longest": longest, "positions": positions, "tokenizer": limit}
        if refused:
            # Texts that are too long have no reward here.
            yield self.found(
                "fault", f"{len(refused)} of {len(refused) + len(patient.samples.prompts)} texts "
                f"are longer ({max(refused)} tokens) than the model's limit of {positions}: they "
                "are refused here (the other checks leave them out), and programs that truncate "
                "cut them. Shorten them", **(figures | {"longest": max(refused)}),
            )
        elif limit is not None and longest > limit:
            yield self._cut(patient, limit, longest, figures)
        elif limit is not None and positions is not None and limit < positions:
            yield self.found(
                "note", f"the tokenizer's limit is {limit} tokens and the model's is {positions}: "
                "programs with truncation=True cut longer texts", **figures,
            )
        else:
            at_most = "the model has no limit" if positions is None else (
                f"the model's limit is {positions}"
            )
            yield self.found("ok", f"the longest text has {longest} tokens; {at_most}", **figures)

    def _cut(
        self, patient: Patient, limit: int, longest: int, figures: dict[str, int | None]
    ) -> Finding:
        whole = [[*prompt, *ids] for prompt, ids in zip(*patient.written, strict=True)]
        right = patient.tokenizer.truncation_side == "right"
        kept = [ids[:limit] if right else ids[-limit:] for ids in whole]
        cut = patient.score_ids([[] for _ in kept], kept)
        count = sum(len(ids) > limit for ids in whole)
        lost = "the end of the answer" if right else "the beginning of the prompt"
        return self.found(
            "fault", f"{count} of {len(whole)} texts are longer ({longest} tokens) than the "
            f"tokenizer's model_max_length of {limit}: programs with truncation=True lose {lost}, "
            f"and rewards change by up to {largest(cut, patient.rewards):.3g}. Raise "
            "model_max_length in tokenizer_config.json", cut=count,
            largest_difference=largest(cut, patient.rewards), **figures,
        )
