"""Adapters of sequence classifiers, as peft and TRL leave them, merged into their base model."""

from typing import Any

import torch

from rewardsteer.data.template import Template
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.rewardsteer import load_checkpoint
from rewardsteer.models.scorer import Scorer


class AdapterKind(Kind):
    """A peft adapter of the task SEQ_CLS with its head among the weights."""

    summary = "adapter of a sequence classifier with one label"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether it is an adapter and none of ours; the task is checked on loading."""
        return folder.is_adapter and not folder.has_card

    @classmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> Scorer:
        """See `Kind.load`."""
        return load_checkpoint(folder, device=device, dtype=dtype, template=template, **options)
