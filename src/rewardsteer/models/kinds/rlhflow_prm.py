"""RLHFlow's process reward models (Llama3.1-8B-PRM-*-Data): a conversation in which the assistant
answers ``+`` or ``-`` to each step."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import DataError
from rewardsteer.models.kinds.causal_prm import CausalPrm
from rewardsteer.models.kinds.parts import question_of, require_chat_template
from rewardsteer.models.kinds.stepwise import EncodedSteps
from rewardsteer.records import Prompt


class RlhflowPrm(CausalPrm):
    """The good token's share in the logits that predict the assistant's answer to each step.

    The first user turn is the question, a blank and the first step; each later one is a step. All
    answers before a step are the good token, whatever the model says of them. So one pass over the
    whole conversation reads all steps.
    """

    kind = "rlhflow_prm"
    summary = "process reward model of RLHFlow: a chat that answers + or - to each step"
    published_aggregate: ClassVar[str] = "mean"

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        require_chat_template(tokenizer, self.kind, self.name)

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """The conversation, and the columns before its answers."""
        texts = [f"{question_of(prompt, self.kind)} {steps[0]}", *steps[1:]]
        turns: list[dict[str, str]] = []
        written, columns = [], []
        for text in texts:
            turns += [
                {"role": "user", "content": text}, {"role": "assistant", "content": self.good}
            ]
            written.append(self._written(turns))
            columns.append(self._answer(written[-1]) - 1)
        ids = written[-1]
        if any(
            ids[: column + 2] != before[: column + 2]
            for column, before in zip(columns, written, strict=True)
        ):
            raise DataError(
                "the chat template writes a conversation otherwise once more turns follow, so its "
                "steps cannot be read in one pass; use the tokenizer that the model was "
                "published with."
            )
        return EncodedSteps(ids, columns)

    def _written(self, turns: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=False
        )
        return bare_ids(text, self.tokenizer)

    def _answer(self, ids: list[int]) -> int:
        """Column of the last answer."""
        for column in range(len(ids) - 1, 0, -1):
            if ids[column] == self.good_id:
                return column
        raise DataError(
            f"the chat template writes the answer {self.good!r} with another token than "
            "the vocabulary's; name the token with good=."
        )
