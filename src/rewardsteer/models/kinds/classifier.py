"""Sequence classifiers with one label: the reward is the raw logit at the last token."""

from typing import Any

import torch

from rewardsteer.data.template import Template
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.rewardsteer import load_checkpoint
from rewardsteer.models.scorer import Scorer


class ClassifierKind(Kind):
    """An ``AutoModelForSequenceClassification`` with one label on a decoder, with or without a card
    of ours. The position that is scored is that of transformers: the last token that is not the
    padding token."""

    summary = "sequence classifier with one label"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether the class and its one label say so."""
        return (
            not folder.has_card and not folder.is_adapter and len(folder.labels) == 1
            and folder.architecture.endswith("ForSequenceClassification")
        )

    @classmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> Scorer:
        """See `Kind.load`."""
        return load_checkpoint(folder, device=device, dtype=dtype, template=template, **options)
