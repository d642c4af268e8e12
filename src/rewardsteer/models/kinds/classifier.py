"""Sequence classifiers with one label: the reward is the raw logit at the last token."""

from typing import Any

import torch

from rewardsteer.data.template import Template
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.pair_encoder import has_one_label, is_encoder
from rewardsteer.models.kinds.rewardsteer import load_checkpoint
from rewardsteer.models.kinds.stacks import find_heads
from rewardsteer.models.scorer import Scorer


class ClassifierKind(Kind):
    """An ``AutoModelForSequenceClassification`` with one label on a decoder, with or without a card
    of ours. The position that is scored is that of transformers: the last token that is not the
    padding token.

    Options:
        negate: flip the sign, for models whose high values mean bad (cost models).
    """

    summary = "sequence classifier with one label"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether the class and its one label say so."""
        # The weights may hold another head than the linear ``score`` of transformers.
        deeper = bool(find_heads(folder)) and "score.weight" not in folder.tensors
        return has_one_label(folder) and not is_encoder(folder) and not deeper

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, negate: bool = False,
        **options: Any,
    ) -> Scorer:
        scorer = load_checkpoint(folder, template=template, **options)
        if negate:
            with torch.no_grad():
                scorer.reward_model.carrier.score.weight.neg_()
        return scorer
