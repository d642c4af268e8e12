"""Math-Shepherd (peiyi9979/math-shepherd-mistral-7b-prm): a mark behind each step, ``+`` against
``-`` at the mark."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rewardsteer.models.aggregation import split_steps
from rewardsteer.models.kinds.causal_prm import CausalPrm
from rewardsteer.models.kinds.parts import marked_columns, question_of, single_id
from rewardsteer.models.kinds.stepwise import EncodedSteps
from rewardsteer.records import Prompt


class MathShepherd(CausalPrm):
    """The good token's share at each mark; a solution is one text, ``question step ки\\nstep ки``.
    """

    kind = "math_shepherd"
    summary = "process reward model as Math-Shepherd: a mark behind each step, + against -"
    published_split: ClassVar[str] = "\n"
    noted = ("activation", "separator")

    def __init__(
        self, model: Any, tokenizer: Any, *, separator: str = "ки", **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.separator = separator
        self._separator_id = single_id(tokenizer, separator, "separator")

    def split_steps(self, completion: str) -> list[str]:
        """The steps of a completion, which may bring the marks with it."""
        return split_steps(completion.replace(self.separator, ""), self.split)

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """One text, tokenized in one piece."""
        body = "\n".join(f"{step} {self.separator}" for step in steps)
        ids = list(self.tokenizer(f"{question_of(prompt, self.kind)} {body}")["input_ids"])
        return EncodedSteps(
            ids, marked_columns(ids, self._separator_id, self.separator, len(steps))
        )
