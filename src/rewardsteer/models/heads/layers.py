"""Layers of heads, which share the parameters of a model's own linear layers."""

from typing import TypeVar

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
