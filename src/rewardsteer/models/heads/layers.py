"""Layers of heads, alone and stacked, which compute in float32."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from rewardsteer.kernels.precision import wide_linear

L = TypeVar("L", bound=nn.Linear)


def share(kind: type[L], layer: nn.Linear) -> L:
    """A layer of another class with the same parameters, no copies of them."""
    made = kind(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight, made.bias = layer.weight, layer.bias
    # On a model with a device map, accelerate's hook moves inputs and weights to one device.
    hook = getattr(layer, "_hf_hook", None)
    if hook is not None:
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(made, hook)
    return made.train(layer.training)


class WideLinear(nn.Linear):
    """A linear layer that computes in float32 or wider, whatever its weights and autocast are.

    It is a layer and not a function because sharded training gathers parameters around a layer's
    call.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Outputs ``[..., out]`` of hidden ``[..., D]``."""
        return wide_linear(hidden, self.weight, self.bias)


def install_wide(model: nn.Module) -> None:
    """Make a sequence classifier's linear ``score`` layer a `WideLinear`, in place."""
    layer = getattr(model, "score", None)
    if type(layer) is nn.Linear:
        model.score = share(WideLinear, layer)


class Layer(NamedTuple):
    """A linear layer: weight ``[out, in]``; bias ``[out]`` or None."""

    weight: Tensor
    bias: Tensor | None


def as_module(layers: list[Layer]) -> nn.Sequential:
    """The layers as a module that computes in float32."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        layer = WideLinear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.weight = nn.Parameter(weight.float())
        if bias is not None:
            layer.bias = nn.Parameter(bias.float())
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def sized_stack(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """A module for the saved parameters of an MLP head; raises `ValueError` for other ones."""
    names = sorted({name.partition(".")[0] for name in tensors}, key=int)
    if not names or names != [str(2 * at) for at in range(len(names))]:
        raise ValueError(f"expected layers 0, 2, …, got {', '.join(names) or 'none'}")
    layers = [Layer(tensors[f"{name}.weight"], tensors.get(f"{name}.bias")) for name in names]
    for before, layer in itertools.pairwise(layers):
        if layer.weight.dim() != 2 or layer.weight.shape[1] != before.weight.shape[0]:
            raise ValueError("its layers do not follow each other")
    if len({layer.bias is None for layer in layers[:-1]}) > 1:
        raise ValueError("some of its layers lack their bias")
    return as_module(layers)
