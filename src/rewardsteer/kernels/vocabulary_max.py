"""The best next token without the logits.

The maximum constraint needs one number of a vocabulary-sized product: its maximum. Here the product
is computed in pieces, without gradients, and only the index of the maximum is kept; value and
gradient then come from one dot product per position. With a single maximum, this is exactly the
gradient of the plain maximum; where several tokens tie, autograd's maximum picks one of them too.
Under autocast the search has the speed and precision of autocast logits, so it may return a token
within a rounding error of the best; the value of that token is exact.

No tensor of size positions × vocabulary exists: memory depends on the size of a piece instead.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from rewardsteer.kernels.precision import widen

# Elements in one piece of the product. On a CPU, a piece of 8 MiB is still cached when its maximum
# is taken. Larger pieces were slower to allocate; smaller ones no faster on a free machine and much
# slower on a busy one, because threads synchronise after each. Other devices compute more at once.
_NEAR, _PARALLEL = 1 << 21, 1 << 24


class Pieces(NamedTuple):
    """The pieces of a product: blocks of positions and chunks of vocabulary rows."""

    blocks: list[slice]
    chunks: list[slice]


def pieces(hidden: Tensor, weight: Tensor, numbers: int | None) -> Pieces:
    """Divide the product ``[N, V]`` of ``hidden [N, D]`` and ``weight [V, D]`` into pieces.

    Args:
        hidden: only its length and device are used.
        weight: only its length is used.
        numbers: most elements in one block × chunk; None: a number that suits the device.
    """
    limit = numbers or (_NEAR if hidden.device.type == "cpu" else _PARALLEL)
    # Square pieces, except with few positions; long blocks would leave narrow chunks.
    block = max(min(len(hidden), math.isqrt(limit)), 1)
    return Pieces(_cut(len(hidden), block), _cut(len(weight), max(limit // block, 1)))


def _cut(length: int, size: int) -> list[slice]:
    return [slice(begin, begin + size) for begin in range(0, length, size)]


def vocabulary_argmax(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, numbers: int | None = None
) -> Tensor:
    """Index of the row of ``weight`` with the largest product with each state.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        numbers: most products held at once; None: as many as suit the device.

    Returns:
        ``[N]`` indices; the lowest one of equals.
    """
    place: Tensor = _argmax(
        hidden.detach(), weight.detach(), None if bias is None else bias.detach(),
        product_dtype(hidden, weight), numbers,
    )
    return place


def product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype of the products: autocast's where it is on, else that of ``weight``."""
    kind = hidden.device.type
    # Autocast does not change float64, and does not support the meta device.
    if weight.dtype == torch.float64 or kind == "meta" or not torch.is_autocast_enabled(kind):
        return weight.dtype
    return torch.get_autocast_dtype(kind)


# An operator of its own, so that torch.compile calls it instead of unrolling its loop.
@torch.library.custom_op(
    "rewardsteer::vocabulary_argmax", mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor? bias, ScalarType dtype, int? numbers) -> Tensor",
)
def _argmax(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, numbers: int | None
) -> Tensor:
    states, (blocks, chunks) = hidden.to(dtype), pieces(hidden, weight, numbers)
    best = states.new_full((len(states),), -torch.inf)
    place = torch.zeros_like(best, dtype=torch.long)
    for rows in chunks:
        chunk, offset = weight[rows].to(dtype), None if bias is None else bias[rows].to(dtype)
        for block in blocks:
            value, index = linear(states[block], chunk, offset).max(dim=-1)
            # NaN counts as the maximum, as in torch.max, so that a broken row shows.
            better = (value > best[block]) | value.isnan()
            best[block] = torch.where(better, value, best[block])
            place[block] = torch.where(better, index + rows.start, place[block])
    return place


@_argmax.register_fake
def _(hidden: Tensor, *_: Any) -> Tensor:
    return hidden.new_empty(len(hidden), dtype=torch.long)


def gather_products(
    hidden: Tensor, weight: Tensor, tokens: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``hidden · weight[tokens] + bias[tokens]`` ``[...]``, one dot product per position.

    Float32 or wider, sums included; differentiable in hidden, weight and bias.

    Args:
        hidden: ``[..., D]``.
        weight: ``[V, D]``.
        tokens: ``[...]`` row indices.
        bias: ``[V]`` or None.
    """
    rows: Tensor = _Rows.apply(weight, tokens)
    products = (hidden.to(rows.dtype) * rows).sum(-1)
    return products if bias is None else products + _Rows.apply(bias, tokens)


class _Rows(torch.autograd.Function):
    """``values[tokens]`` in float32 or wider. The gradient of a row is summed before it is rounded:
    one token may be the best at thousands of positions, and a sum in bfloat16 stops growing once
    it is large."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.shape, ctx.dtype = values.shape, values.dtype
        return widen(values[tokens])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        flat = tokens.flatten()
        parts = gradient.reshape(len(flat), *ctx.shape[1:])
        # The sum of a token is kept at any one of its positions.
        position = flat.new_empty(ctx.shape[0])
        position[flat] = torch.arange(len(flat), device=flat.device)
        place = position[flat]
        # Unlike index_put, this sums in the same order with any number of threads.
        sums = torch.ops.aten.embedding_dense_backward(
            parts[:, None].flatten(1), place, len(flat), -1, False
        ).view_as(parts)
        rows = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
        rows[flat] = sums[place].to(ctx.dtype)
        return rows, None
