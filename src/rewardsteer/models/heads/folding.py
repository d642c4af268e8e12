"""A low-rank vocabulary head as one full output layer, which engines read as logits."""

from typing import Any

import torch

from rewardsteer.errors import MismatchError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.vocabulary import open_vocabulary
from rewardsteer.models.reward_model import RewardModel


@torch.no_grad()
def fold(model: RewardModel) -> RewardModel:
    """The reward model with a full vocabulary head in place of a low-rank one; the backbone is the
    given one's, changed in place.

    Rewards are the same up to rounding: of the carrier's type where that is bfloat16.

    Raises:
        MismatchError: its head is not such a one.
    """
    own: Any = model.value_head
    if own is None or model.head_config.kind != "vocabulary":
        raise MismatchError(
            "Expected a vocabulary head with layers=low_rank or embedding to fold; got a "
            f"{model.head_config.kind} head with layers={model.head_config.layers}."
        )
    carrier = model.carrier
    generated = carrier.get_output_embeddings().generated
    weight = own.folded(carrier.get_output_embeddings())
    config = HeadConfig(kind="vocabulary", init="zeros")
    open_vocabulary(carrier, config)
    layer = carrier.get_output_embeddings()
    layer.weight.copy_(weight)
    layer.generated = generated
    return RewardModel(carrier, config)
