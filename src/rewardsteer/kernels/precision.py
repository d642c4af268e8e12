"""Computation of rewards and log-probabilities in float32 or wider, for weights of any dtype.

Rewards of good responses differ by little; with the 8 significant bits of bfloat16 many would tie.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

# Number of elements of a narrow weight that are converted at once.
_CHUNK = 1 << 24


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Float64 if the dtype is that, else float32."""
    return torch.promote_types(dtype, torch.float32)


def widen(values: Tensor) -> Tensor:
    """The values in float32; float64 values unchanged."""
    return values.to(wide_dtype(values.dtype))


def exact(values: Tensor) -> Tensor:
    """The values in float64: on their device, or on the CPU if the device has no float64 (MPS)."""
    return values.double() if values.device.type != "mps" else values.cpu().double()


def without_autocast(values: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``values``."""
    kind = values.device.type
    # Not every device has autocast (the meta device has none).
    if not torch.amp.autocast_mode.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def wide_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``hidden · weightᵀ + bias`` ``[..., V]`` in float32 or wider, differentiable.

    A narrow weight is widened in chunks when no gradient is asked for, so that no wide copy of a
    whole output layer is held.

    Args:
        hidden: ``[..., D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
    """
    dtype = torch.promote_types(wide_dtype(hidden.dtype), weight.dtype)
    with without_autocast(hidden):
        states, wide = hidden.to(dtype), None if bias is None else bias.to(dtype)
        rows = max(_CHUNK // max(weight.shape[1], 1), 1)
        if torch.is_grad_enabled():
            found: Tensor = _Product.apply(states, weight.to(dtype), wide)
            return found
        if weight.dtype == dtype or len(weight) <= rows:
            return linear(states, weight.to(dtype), wide)
        products = states.new_empty(*states.shape[:-1], len(weight))
        for begin in range(0, len(weight), rows):
            chunk = slice(begin, begin + rows)
            products[..., chunk] = linear(
                states, weight[chunk].to(dtype), None if wide is None else wide[chunk]
            )
        return products


class _Product(torch.autograd.Function):
    """A linear layer whose backward pass is outside of autocast too; torch.compile would otherwise
    trace it under the autocast of the forward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.biased = bias is not None
        return linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        states, weight = ctx.saved_tensors
        with without_autocast(gradient):
            flat = gradient.flatten(0, -2) if gradient.dim() > 1 else gradient[None]
            rows = states.reshape(-1, states.shape[-1])
            sums = flat.sum(0) if ctx.biased else None
            return (flat @ weight).view(states.shape), flat.T @ rows, sums
