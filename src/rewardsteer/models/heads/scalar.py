"""One reward per prefix: linear or MLP."""

import itertools

from torch import Tensor, nn

from rewardsteer.models.heads.base import Head
from rewardsteer.models.heads.layers import WideLinear, share


class ScalarHead(Head):
    """Reads the reward of a prefix off the hidden state of its last token, r = v·h.

    Args:
        projection: maps hidden states ``[..., D]`` to ``[..., 1]``. It belongs to the model that
            holds its parameters; the head only reads it. Its layers are `WideLinear` ones, or it is
            a plain linear layer, which is read as one.
    """

    def __init__(self, projection: nn.Module) -> None:
        if type(projection) is nn.Linear:
            projection = share(WideLinear, projection)
        self.projection = projection

    def values(self, hidden: Tensor) -> Tensor:
        """Rewards ``[...]`` (float32 or wider) of the prefixes that end at hidden ``[..., D]``."""
        rewards: Tensor = self.projection(hidden).squeeze(-1)
        return rewards

    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """See `values`; the state has read the token."""
        return self.values(hidden)


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
