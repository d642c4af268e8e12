"""Adapters of sequence classifiers, as peft and TRL leave them, merged into their base model."""

from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.rewardsteer import RewardsteerKind


class AdapterKind(RewardsteerKind):
    """A peft adapter of the task SEQ_CLS with its head among the weights."""

    summary = "adapter of a sequence classifier with one label"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether it is an adapter and none of ours; the task is checked on loading."""
        return folder.is_adapter and not folder.has_card

