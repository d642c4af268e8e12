"""Process reward models of TRL's ``PRMTrainer``: a token classifier with two labels.

A solution is tokenized piece by piece, as in training: the question, then each step followed by the
separator. The value of a step is the probability of label 1 at the separator's last token. (TRL's
documentation joins the texts first, which gives other tokens than training saw.)
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import question_of
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt


class TokenClassificationPrm(StepScorer):
    """P(label 1) at the last token of the separator behind each step.

    Args:
        separator: text that follows each step.
        options: see `StepScorer`.
    """

    kind = "token_classification_prm"
    summary = "process reward model of TRL's PRMTrainer: token classifier with two labels"
    auto_class = "AutoModelForTokenClassification"
    published_separator: ClassVar[str] = "\n"
    published_split: ClassVar[str] = "\n"
    begins: ClassVar[bool] = True
    activation = "softmax, label 1"
    noted = ("activation", "separator")

    def __init__(
        self, model: Any, tokenizer: Any, *, separator: str | None = None, **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.separator = self.published_separator if separator is None else separator
        self._separator_ids = bare_ids(self.separator, self.tokenizer)
        if not self._separator_ids:
            raise DataError(f"The separator {self.separator!r} has no token; name another text.")

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """A token classifier with two labels."""
        return (
            not folder.has_card and folder.architecture.endswith("ForTokenClassification")
            and len(folder.labels) == 2
        )

    @classmethod
    def check(cls, folder: FolderDescription) -> None:
        """Two labels."""
        if len(folder.labels) != 2:
            raise CheckpointError(
                f"{folder.path} has {len(folder.labels)} labels; a process reward model of this "
                "kind has two, incorrect and correct."
            )

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """Beginning of text where there is one, the question, then step and separator in turn."""
        ids = bare_ids(question_of(prompt, self.kind), self.tokenizer)
        if self.begins and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id, *ids]
        columns = []
        for step in steps:
            ids += [*bare_ids(step, self.tokenizer), *self._separator_ids]
            columns.append(len(ids) - 1)
        return EncodedSteps(ids, columns)

    def values(self, outputs: Tensor) -> Tensor:
        """Probabilities of label 1."""
        return outputs.softmax(-1)[:, 1]
