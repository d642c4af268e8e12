"""Backups of next-token rewards under a policy, without the logits of either model.

The equations are those of `rewardsteer.objectives.max_constraint`. Products are computed in pieces
as in `vocabulary_max`, so no tensor of size positions × vocabulary exists. No gradient flows into
the policy.
"""

from typing import Any

import torch
from torch import Tensor

from rewardsteer.kernels.precision import wide_dtype, widen, without_autocast
from rewardsteer.kernels.vocabulary_max import gather_products, pieces
from rewardsteer.kernels.vocabulary_soft import OutputLayer


def policy_mean(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, policy: OutputLayer, *,
    numbers: int | None = None,
) -> Tensor:
    """Σ_v p(v) · r_v ``[N]`` (float32 or wider) of r = hidden · weightᵀ + bias.

    Differentiable once in hidden, weight and bias.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        policy: the policy's output layer, at the same N positions over the same V tokens.
        numbers: most products held at once; None: as many as suit the device.
    """
    with without_autocast(hidden):
        value: Tensor = _Mean.apply(hidden, weight, bias, policy, numbers)
    return value


def policy_top_k(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, policy: OutputLayer, count: int, *,
    numbers: int | None = None,
) -> Tensor:
    """The maximum ``[N]`` (float32 or wider) of r over the policy's ``count`` most probable tokens;
    see `policy_mean` for the arguments."""
    tokens = _most_probable(policy, count, numbers)
    states = hidden[:, None].expand(-1, tokens.shape[1], -1)
    return gather_products(states, weight, tokens, bias).amax(dim=1)


@torch.no_grad()
def _most_probable(policy: OutputLayer, count: int, numbers: int | None) -> Tensor:
    """The policy's most probable tokens ``[N, min(count, V)]``."""
    blocks, chunks = pieces(policy.hidden, policy.weight, numbers)
    found = []
    for block in blocks:
        logits, tokens = None, None
        for rows in chunks:
            some = policy.rows(rows).logits(block)
            index = torch.arange(rows.start, rows.start + some.shape[1], device=some.device)
            index = index.expand(len(some), -1)
            if logits is not None and tokens is not None:
                some, index = torch.cat([logits, some], dim=1), torch.cat([tokens, index], dim=1)
            logits, places = some.topk(min(count, some.shape[1]), dim=1)
            tokens = index.gather(1, places)
        assert tokens is not None, "a vocabulary has tokens"
        found.append(tokens)
    if not found:
        return torch.zeros(0, 1, dtype=torch.long, device=policy.hidden.device)
    return torch.cat(found)


class _Mean(torch.autograd.Function):
    """See `policy_mean`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, policy: OutputLayer,
        numbers: int | None,
    ) -> Tensor:
        dtype = wide_dtype(torch.promote_types(hidden.dtype, weight.dtype))
        blocks, chunks = pieces(hidden, weight, numbers)
        normaliser = hidden.new_full((len(hidden),), -torch.inf, dtype=dtype)
        for rows in chunks:
            chunk = policy.rows(rows)
            for block in blocks:
                more = chunk.logits(block).logsumexp(dim=-1).to(dtype)
                normaliser[block] = torch.logaddexp(normaliser[block], more)
        rewards, value = OutputLayer(hidden.to(dtype), weight, bias), torch.zeros_like(normaliser)
        for rows in chunks:
            chunk, own = policy.rows(rows), rewards.rows(rows)
            for block in blocks:
                shares = (chunk.logits(block).to(dtype) - normaliser[block, None]).exp()
                value[block] += (shares * own.logits(block)).sum(dim=-1)
        ctx.save_for_backward(hidden, weight, bias, normaliser, *policy)
        ctx.numbers = numbers
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, normaliser, *held = ctx.saved_tensors
        policy, states = OutputLayer(*held), hidden.to(normaliser.dtype)
        blocks, chunks = pieces(hidden, weight, ctx.numbers)
        for_hidden, for_weight = torch.zeros_like(states), torch.empty_like(weight)
        for_bias = weight.new_empty(len(weight))
        with without_autocast(gradient):
            for rows in chunks:
                chunk, own = policy.rows(rows), weight[rows].to(states.dtype)
                sums = torch.zeros_like(own)
                counts = own.new_zeros(len(own))
                for block in blocks:
                    shares = (widen(chunk.logits(block)) - normaliser[block, None]).exp()
                    shares = shares.to(states.dtype) * gradient[block, None]
                    for_hidden[block] += shares @ own
                    sums += shares.T @ states[block]
                    counts += shares.sum(dim=0)
                for_weight[rows], for_bias[rows] = sums, counts
        return (
            for_hidden.to(hidden.dtype), for_weight, None if bias is None else for_bias, None, None
        )
