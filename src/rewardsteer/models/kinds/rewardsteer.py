"""Folders that rewardsteer wrote, whose card says which head they have and how texts are written;
and classifiers and adapters without a card."""

from typing import Any

import torch

from rewardsteer.data.template import Template, stored_template
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer, read_card
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.limits import padding_id
from rewardsteer.models.process_scorer import ProcessScorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer


class RewardsteerKind(Kind):
    """A folder with ``rewardsteer.json``, whole or an adapter, of one reward (see `AttributeScorer`
    for several)."""

    summary = "trained with rewardsteer"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether the card is there."""
        shape = folder.shape("score.weight")
        several = shape is not None and shape[0] > 1 and not folder.is_adapter
        return folder.has_card and not several

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> Scorer:
        return load_checkpoint(folder, template=template, **options)


class AdapterKind(RewardsteerKind):
    """A peft adapter of the task SEQ_CLS with its head among the weights, as peft and TRL leave it;
    it is merged into its base model."""

    summary = "adapter of a sequence classifier with one label"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether it is an adapter and none of ours; the task is checked on loading."""
        return folder.is_adapter and not folder.has_card


def load_checkpoint(
    folder: FolderDescription, *, device: str | torch.device, dtype: torch.dtype | None,
    template: Template | None, card: CheckpointCard | None = None, **options: Any,
) -> Scorer:
    """A folder of ours, or one that `read_card` reads without a card; arguments as `Kind.load`.
    ``card`` stands for that of a folder that has none."""
    card = read_card(folder.path) if card is None else card
    # An adapter of ours, whose configuration is its base's, is read by nothing else.
    whole = bool(folder.config) or not folder.has_card
    steps = card.reading == "step_logit"
    own = {name: options.pop(name) for name in ("split", "aggregate") if steps and name in options}
    model = RewardModel.from_pretrained(
        folder.path, card=card, dtype=dtype, device=device, **options
    )
    plain = whole and not model.head.gives_next_token
    return (ProcessScorer if steps else Scorer)(
        model, load_tokenizer(folder.path), template or stored_template(card.template),
        objective=card.objective, reading=card.reading,
        unread_id=padding_id(model.config) if plain else None, **folder.identity, **own,
    )
