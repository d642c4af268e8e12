"""PURE's process reward models (jinachris/PURE-PRM-7B): token classifiers read as P(1) − P(0)."""

from typing import ClassVar

from torch import Tensor

from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.token_classification_prm import TokenClassificationPrm


class PurePrm(TokenClassificationPrm):
    """P(label 1) − P(label 0), in [-1, 1], behind each step; no beginning of text is written.
    Nothing in such a folder tells it from one of TRL's, so the kind is named by hand."""

    kind = "pure_prm"
    summary = "process reward model of PURE: token classifier, P(1) - P(0)"
    published_separator: ClassVar[str] = "\n\n"
    published_split: ClassVar[str] = "\n\n"
    begins: ClassVar[bool] = False
    activation = "softmax, label 1 minus label 0"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        return False

    def values(self, outputs: Tensor) -> Tensor:
        """Differences of the two probabilities."""
        probabilities = outputs.softmax(-1)
        return probabilities[:, 1] - probabilities[:, 0]
