"""The soft best next token: τ · log Σ_v p(v) · exp(r_v / τ), without the logits.

It lies between the mean of r under p (τ → ∞) and the maximum of r (τ → 0). With p a base policy's
next-token distribution and r the values of the one-token extensions of a prefix, it is the prefix's
value under the optimal policy with a KL penalty of weight τ towards the base policy:
V*(s) = τ · log E_{v∼p}[exp(Q*(s, v) / τ)] (arXiv 2502.20548).

Products are computed in pieces as in `vocabulary_max`: forward keeps a running log-sum-exp per
position, backward computes the products again. No tensor of size positions × vocabulary exists.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from rewardsteer.kernels.precision import wide_dtype, widen, without_autocast
from rewardsteer.kernels.vocabulary_max import pieces


class OutputLayer(NamedTuple):
    """Hidden states and the output layer that turns them into logits.

    Attributes:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def rows(self, rows: slice) -> "OutputLayer":
        """The layer for some rows of the vocabulary, in the dtype of ``hidden``."""
        dtype = self.hidden.dtype
        bias = None if self.bias is None else self.bias[rows].to(dtype)
        return OutputLayer(self.hidden, self.weight[rows].to(dtype), bias)

    def logits(self, block: slice) -> Tensor:
        """Logits of some of the states, in float32 or wider."""
        return widen(linear(self.hidden[block], self.weight, self.bias))


def vocabulary_logsumexp(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, temperature: float,
    base: OutputLayer | None = None, numbers: int | None = None,
) -> Tensor:
    """τ · log Σ_v p(v) · exp(r_v / τ) ``[N]`` of r = hidden · weightᵀ + bias.

    Products and sums are in float32 or wider, also under autocast: the result is subtracted from a
    reward computed by one exact product, and both must be rounded alike. Differentiable once in
    hidden, weight and bias.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        temperature: τ > 0, in units of r.
        base: the base policy's output layer at the same N positions, which gives p; no gradient
            flows into it. None: p is uniform over V, so that the value lies between mean and
            maximum of r.
        numbers: most products held at once; None: as many as suit the device.
    """
    assert temperature > 0, "a temperature of zero is the hard maximum"
    dtype = torch.promote_types(wide_dtype(hidden.dtype), weight.dtype)
    held = (None, None, None) if base is None else base
    with without_autocast(hidden):
        value, *_ = _soft(hidden, weight, bias, *held, temperature, dtype, numbers)
    return value


# Operators of their own, so that torch.compile calls them instead of unrolling their loops.
_INPUTS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor? base_hidden, Tensor? base_weight, "
    "Tensor? base_bias, float temperature, ScalarType dtype, int? numbers"
)


@torch.library.custom_op(
    "rewardsteer::vocabulary_logsumexp", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor)"
)
def _soft(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, base_hidden: Tensor | None,
    base_weight: Tensor | None, base_bias: Tensor | None, temperature: float, dtype: torch.dtype,
    numbers: int | None,
) -> tuple[Tensor, Tensor]:
    """The value, and log Σ exp(log p + r / τ) before p is normalised, ``[N]`` each."""
    rewards, base = _layers(hidden, weight, bias, base_hidden, base_weight, base_bias, dtype)
    blocks, chunks = pieces(hidden, weight, numbers)
    total = hidden.new_full((len(hidden),), -torch.inf, dtype=wide_dtype(weight.dtype))
    normaliser = torch.full_like(total, math.log(len(weight)) if base is None else -torch.inf)
    for rows in chunks:
        chunk, base_chunk = rewards.rows(rows), None if base is None else base.rows(rows)
        for block in blocks:
            exponents = chunk.logits(block).div_(temperature)
            if base_chunk is not None:
                logits = base_chunk.logits(block)
                exponents += logits
                _add_exponents(normaliser[block], logits)
            _add_exponents(total[block], exponents)
    return temperature * (total - normaliser), total


@torch.library.custom_op(
    "rewardsteer::vocabulary_logsumexp_backward", mutates_args=(),
    schema=f"(Tensor gradient, Tensor total, {_INPUTS}) -> (Tensor, Tensor, Tensor)",
)
def _soft_backward(
    gradient: Tensor, total: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None,
    base_hidden: Tensor | None, base_weight: Tensor | None, base_bias: Tensor | None,
    temperature: float, dtype: torch.dtype, numbers: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias (also computed where there is no bias)."""
    rewards, base = _layers(hidden, weight, bias, base_hidden, base_weight, base_bias, dtype)
    blocks, chunks = pieces(hidden, weight, numbers)
    for_hidden = torch.zeros_like(hidden, dtype=total.dtype)
    for_weight, for_bias = torch.empty_like(weight), weight.new_empty(len(weight))
    for rows in chunks:
        chunk, base_chunk = rewards.rows(rows), None if base is None else base.rows(rows)
        row_sums = torch.zeros_like(chunk.weight, dtype=total.dtype)
        bias_sums = row_sums.new_zeros(len(row_sums))
        for block in blocks:
            shares = chunk.logits(block).div_(temperature)
            if base_chunk is not None:
                shares += base_chunk.logits(block)
            # dV/dr is the softmax of the exponents: the KL-regularised policy itself.
            shares.sub_(total[block, None]).exp_().mul_(gradient[block, None])
            bias_sums += shares.sum(dim=0)
            shares = shares.to(dtype)
            for_hidden[block] += shares @ chunk.weight
            row_sums += shares.T @ rewards.hidden[block]
        for_weight[rows], for_bias[rows] = row_sums, bias_sums
    return for_hidden.to(hidden.dtype), for_weight, for_bias


def _layers(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, base_hidden: Tensor | None,
    base_weight: Tensor | None, base_bias: Tensor | None, dtype: torch.dtype,
) -> tuple[OutputLayer, OutputLayer | None]:
    rewards = OutputLayer(hidden.to(dtype), weight, bias)
    if base_hidden is None or base_weight is None:
        return rewards, None
    return rewards, OutputLayer(base_hidden.to(dtype), base_weight, base_bias)


def _add_exponents(running: Tensor, exponents: Tensor) -> None:
    """running = log(exp(running) + Σ exp(exponents)), in place."""
    torch.logaddexp(running, exponents.logsumexp(dim=-1), out=running)


@_soft.register_fake
def _(hidden: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    value = hidden.new_empty(len(hidden), dtype=wide_dtype(weight.dtype))
    return value, torch.empty_like(value)


@_soft_backward.register_fake
def _(
    gradient: Tensor, total: Tensor, hidden: Tensor, weight: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(hidden), torch.empty_like(weight), weight.new_empty(len(weight))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.temperature, ctx.dtype, ctx.numbers = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *tensors)


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    for_hidden, for_weight, for_bias = _soft_backward(
        gradient, *saved, ctx.temperature, ctx.dtype, ctx.numbers
    )
    return for_hidden, for_weight, None if saved[3] is None else for_bias, *[None] * 6


_soft.register_autograd(_differentiate, setup_context=_save)
