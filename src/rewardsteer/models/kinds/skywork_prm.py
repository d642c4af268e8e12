"""Skywork-o1-Open-PRM: a language model with a value head, read behind each step.

Question and lines are tokenized apart: beginning of text, question and a newline, then each line
followed by the newline's token. The value of a step is the sigmoid of the head at the token behind
its last line. Blank lines keep their tokens and have no value; the published code gives them one.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import question_of
from rewardsteer.models.kinds.stacks import FoundHead
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt


class SkyworkPrm(StepScorer):
    """σ(v·h + b) at the separator's token behind each step.

    Args:
        model: the backbone.
        tokenizer: the model's.
        separator: the text whose last token follows each line.
        options: see `StepScorer`.
    """

    kind = "skywork_prm"
    summary = "process reward model as Skywork-o1-Open-PRM: value head and sigmoid"
    published_head = FoundHead("v_head", ("v_head.summary",), 1)
    published_split: ClassVar[str] = "\n"
    activation = "sigmoid"
    noted = ("activation", "separator")

    def __init__(
        self, model: Any, tokenizer: Any, *, separator: str = "\n", **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.separator = separator
        self._separator_id = tokenizer(separator)["input_ids"][-1]

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """A value head of one layer under an architecture that is named as a PRM."""
        return "prm" in folder.architecture.lower() and cls.has_head(folder)

    def split_steps(self, completion: str) -> list[str]:
        """The steps of a completion as they are; a blank line begins the step after it."""
        steps, blank = [], ""
        for part in completion.split(self.split):
            if part.strip():
                steps.append(blank + part)
                blank = ""
            else:
                blank += part + self.split
        return steps

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """Question and lines, tokenized apart."""
        question = (self.tokenizer.bos_token or "") + question_of(prompt, self.kind) + "\n"
        ids = list(self.tokenizer(question)["input_ids"])
        columns = []
        for step in steps:
            for line in step.split(self.separator):
                ids += [*(self.tokenizer(line)["input_ids"] if line else ()), self._separator_id]
            columns.append(len(ids) - 1)
        return EncodedSteps(ids, columns)

    def values(self, outputs: Tensor) -> Tensor:
        """Sigmoids of the value head."""
        return outputs[:, 0].sigmoid()
