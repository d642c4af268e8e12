"""Reward models that transformers loaded: a classifier object and its tokenizer."""

from pathlib import Path
from typing import Any

from torch import nn

from rewardsteer.data.sources.files import kind_of
from rewardsteer.data.template import Template, stored_template
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.attention import warn_of_caps
from rewardsteer.models.checkpoint import CARD, CheckpointCard, read_card
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.scalar import check_classifier
from rewardsteer.models.limits import padding_id
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer


def scorer_of(
    model: Any, tokenizer: Any, template: Template | None = None, **options: Any
) -> Scorer:
    """A one-label sequence classifier in memory as a scorer; it is put into evaluation mode and
    otherwise left as it is, where it is.

    Args:
        model: a ``transformers`` sequence classifier on a decoder.
        tokenizer: its tokenizer.
        template: how prompts and responses are written; None: as the card of the folder says that
            the model was loaded from, else by the tokenizer's chat template where it has one.
        options: of loading, which are all None.

    Raises:
        CheckpointError: several labels, another class of model, or no tokenizer.
        ConfigError: an option of loading is given.
    """
    name = type(model).__name__
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            "Expected a reward model by its folder or name, or a classifier that transformers "
            f"loaded; got {kind_of(model)}."
        )
    if unused := [f"{name}=" for name, value in options.items() if value is not None]:
        raise ConfigError(f"The loaded {name} is used as it is; leave out {', '.join(unused)}.")
    if tokenizer is None:
        raise CheckpointError(f"Expected the tokenizer beside the loaded {name}; pass tokenizer=.")
    check_classifier(model, f"The loaded {name}")
    if labels != 1:
        raise CheckpointError(
            f"Expected a sequence classifier with one label, the loaded {name} has {labels}; save "
            "it and load the folder, which takes weights or an attribute for several labels."
        )
    warn_of_caps(model)
    source = Path(str(getattr(model.config, "_name_or_path", "") or name))
    card = read_card(source) if (source / CARD).exists() else CheckpointCard(head=HeadConfig())
    if card.head != HeadConfig(init=card.head.init):
        raise CheckpointError(
            f"The head of {source} is not in the loaded {name}; pass the folder in its place."
        )
    return Scorer(
        RewardModel(model, card.head), tokenizer, template or stored_template(card.template),
        objective=card.objective, reading=card.reading, name=str(source),
        unread_id=padding_id(model.config),
    )
