"""One reward per prefix: linear or MLP."""

import itertools
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import ADAPTER_WEIGHTS, VALUE_HEAD, CheckpointCard
from rewardsteer.models.heads.base import Head, saved_own
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import WideLinear, share, sized_stack
from rewardsteer.models.loading import no_score
from rewardsteer.models.placement import put_beside
from rewardsteer.models.sharding import gathered


class ScalarHead(Head):
    """The reward of a prefix is r = v·h of the hidden state h at its last token, or an MLP of it.

    Layers are `WideLinear` ones; a plain linear layer is used as one.
    """

    description = "a scalar head (one reward per prefix)"
    summary = "scalar head: one reward for a prompt and response"

    def __init__(self, projection: nn.Module) -> None:
        if type(projection) is nn.Linear:
            projection = share(WideLinear, projection)
        super().__init__(projection)

    def values(self, hidden: Tensor) -> Tensor:
        """Rewards ``[...]`` (float32 or wider) of the prefixes that end at hidden ``[..., D]``."""
        rewards: Tensor = self.projection(hidden).squeeze(-1)
        return rewards.to(hidden.device)

    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """See `values`; the states include the tokens."""
        return self.values(hidden)

    @classmethod
    def build(cls, config: HeadConfig, size: int) -> nn.Module | None:
        """The MLP, where the head is one."""
        return build_mlp(size, config.init) if config.layers == "mlp" else None

    @classmethod
    def restore(cls, model: Any, config: HeadConfig, folder: Path) -> nn.Module | None:
        """See `Head.restore`; the MLP has the sizes it was saved with."""
        if config.layers != "mlp":
            return None
        own: Any = saved_own(folder, sized_stack)
        size, first, last = cls.layer(model).in_features, own[0], own[-1]
        if first.in_features != size or last.out_features != 1:
            raise CheckpointError(
                f"The MLP head {folder / VALUE_HEAD} is of another size: it leads from "
                f"{first.in_features} numbers to {last.out_features}, expected {size} to 1."
            )
        return put_beside(cls.layer(model), own)

    @classmethod
    def is_trained(cls, missing: list[str], card: CheckpointCard | None, source: str) -> bool:
        """See `Head.is_trained`; the linear layer beside an MLP is never trained."""
        mlp = card is not None and card.head.layers == "mlp"
        return super().is_trained(missing, card, source) and not mlp

    @classmethod
    def in_adapter(cls, adapter: Path) -> bool:
        """See `Head.in_adapter`."""
        from safetensors import safe_open

        with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as weights:
            return any(".score." in f".{name}" for name in weights.keys())  # noqa: SIM118

    @classmethod
    def attach(
        cls, model: Any, config: HeadConfig, source: Any, card: CheckpointCard | None = None, *,
        trained: bool = False,
    ) -> nn.Module | None:
        """See `Head.attach`."""
        check_classifier(model, source)
        if not trained:
            with gathered(model.score.parameters()):
                initialise_linear(model.score, config.init)
        return super().attach(model, config, source, card, trained=trained)

    @classmethod
    def open(cls, model: Any, card: CheckpointCard, folder: Path) -> None:
        """See `Head.open`."""
        check_classifier(model, folder)

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """Its kind and layers."""
        return f"{config.kind}, {config.layers}"

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        """See `Head.loading`."""
        return "package" if config.layers == "mlp" else "classifier"


def check_classifier(model: Any, source: str | Path) -> None:
    """Refuse a classifier without a linear ``score`` layer over the last token.

    Raises:
        CheckpointError: an encoder (BERT, RoBERTa, DeBERTa, …) or another kind of classifier.
    """
    if isinstance(getattr(model, "score", None), nn.Linear):
        return
    raise no_score(model, source)


def initialise_linear(layer: nn.Linear, init: str = "normal") -> None:
    """Draw the weights of a layer that ends in a reward, see `HeadConfig.init`."""
    variance = 1 / (layer.in_features + 1)
    nn.init.normal_(layer.weight, std=variance if init == "openrlhf" else variance**0.5)


def build_mlp(hidden_size: int, init: str = "normal") -> nn.Sequential:
    """D → D/2 → D/2 → D → 1 with ReLU, last layer without bias (arXiv 2407.13887).

    Under ``normal`` every layer starts at std sqrt(2/fan_in) so that signal reaches the end; only
    the last one is small, so that rewards start near zero. (``openrlhf``, the published
    1/(fan_in+1) everywhere, leaves the head with outputs of about 1e-7, and bfloat16 ties all
    rewards.)
    """
    half = max(hidden_size // 2, 1)
    sizes = [hidden_size, half, half, hidden_size]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = WideLinear(fan_in, fan_out)
        if init == "openrlhf":
            initialise_linear(layer, init)
        else:
            # ReLU passes half of the energy on, so sqrt(2) keeps the scale from layer to layer.
            nn.init.normal_(layer.weight, std=(2.0 / fan_in) ** 0.5)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    last = WideLinear(sizes[-1], 1, bias=False)
    initialise_linear(last, init)
    return nn.Sequential(*layers, last)
