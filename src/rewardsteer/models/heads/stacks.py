"""Linear layers with ReLU between them: MLP heads of any sizes, as they were saved."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from rewardsteer.models.heads.layers import WideLinear


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
