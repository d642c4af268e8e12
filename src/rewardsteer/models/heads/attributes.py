"""Several attributes per prefix, such as helpfulness and verbosity, and their weighted sum."""

from typing import Any

import torch
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.scalar import ScalarHead


class AttributesHead(ScalarHead):
    """K attributes of a prefix, each a linear function of the hidden state at its last token; the
    reward is their sum with the weights ``head.weights``.

    The folder is an ordinary sequence classifier with K labels, named in ``id2label``.
    """

    gives = frozenset({"states", "prefix_rewards", "attributes"})
    description = "a head of several attributes"
    summary = "attributes head: several ratings of a prompt and response, and their weighted sum"

    def __init__(self, projection: nn.Module, weights: Tensor) -> None:
        super().__init__(projection)
        self.weights = weights

    @classmethod
    def of(cls, model: Any, own: nn.Module | None) -> "AttributesHead":
        """See `Head.of`; the weights are in the model's configuration."""
        return cls(cls.layer(model), torch.tensor(model.config.attribute_weights))

    def attributes(self, hidden: Tensor) -> Tensor:
        """Attributes ``[..., K]`` (float32 or wider) of the prefixes that end at hidden
        ``[..., D]``."""
        values: Tensor = self.projection(hidden)
        return values.to(hidden.device)

    def values(self, hidden: Tensor) -> Tensor:
        """Rewards ``[...]`` of the prefixes that end at hidden ``[..., D]``."""
        values = self.attributes(hidden)
        # No matrix product, which autocast would round.
        return (values * self.weights.to(values)).sum(dim=-1)

    @classmethod
    def attach(
        cls, model: Any, config: HeadConfig, source: Any, card: CheckpointCard | None = None, *,
        trained: bool = False,
    ) -> nn.Module | None:
        if trained and card is not None and card.head.attributes != config.attributes:
            raise CheckpointError(
                f"{source} is a reward model of the attributes {', '.join(card.head.attributes)}, "
                f"and {', '.join(config.attributes)} are asked for; name the same in "
                "head.attributes, or start from its base model."
            )
        model.config.attribute_weights = config.weights
        return super().attach(model, config, source, card, trained=trained)

    @classmethod
    def open(cls, model: Any, card: CheckpointCard, folder: Any) -> None:
        super().open(model, card, folder)
        model.config.attribute_weights = card.head.weights

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """Its attributes with their weights."""
        pairs = zip(config.attributes, config.weights, strict=True)
        parts = [f"{name} {weight:g}" for name, weight in pairs]
        return f"{config.kind}: {', '.join(parts)}"

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        return "attributes"
