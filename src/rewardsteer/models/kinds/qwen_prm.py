"""Qwen2.5-Math-PRM and its relatives: a backbone with a Linear-ReLU-Linear head of two labels.

The steps are one assistant's turn, each followed by ``<extra_0>``; the value of a step is the
probability of label 1 at that token. The published folders bring code of their own, which is not
run: the head is rebuilt from its four tensors.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import marked_columns, require_chat_template, single_id
from rewardsteer.models.kinds.stacks import FoundHead
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt

_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class QwenPrm(StepScorer):
    """P(label 1) at the separator behind each step.

    Args:
        model: the backbone.
        tokenizer: with a chat template and the separator.
        separator: the token behind each step.
        system: system prompt; None: the published one, "": none (ReasonFlux-PRM).
        options: see `StepScorer`.
    """

    kind = "qwen_prm"
    summary = "process reward model as Qwen2.5-Math-PRM: chat template, <extra_0> behind each step"
    published_head = FoundHead("score", ("score.0", "score.2"), 2)
    published_aggregate: ClassVar[str] = "product"
    activation = "softmax, label 1"
    noted = ("activation", "separator", "system")

    def __init__(
        self, model: Any, tokenizer: Any, *, separator: str = "<extra_0>",
        system: str | None = None, **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.separator = separator
        self.system = _SYSTEM if system is None else system
        self._separator_id = single_id(tokenizer, separator, "separator")
        require_chat_template(tokenizer, self.kind, self.name)

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """A head of two layers with two labels."""
        return not folder.has_card and cls.has_head(folder)

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """The chat template with the steps as the assistant's turn."""
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [
            message.model_dump() for message in prompt
        ]
        if self.system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system}, *turns]
        answer = "".join(step + self.separator for step in steps)
        text = self.tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": answer}], tokenize=False,
            add_generation_prompt=False,
        )
        ids = bare_ids(text, self.tokenizer)
        return EncodedSteps(
            ids, marked_columns(ids, self._separator_id, self.separator, len(steps))
        )

    def values(self, outputs: Tensor) -> Tensor:
        """Probabilities of label 1."""
        return outputs.softmax(-1)[:, 1]
