"""Token positions that the contrastive objective draws from a response.

A span is a run of columns of a padded row, given by its first column and the column after its last
one, so that draws do not depend on the padding side.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from rewardsteer.objectives.base import split_pairs
from rewardsteer.tensors import PairBatch

_BITS = 40


class Spans(NamedTuple):
    """One span a row: ``begin`` and ``end`` ``[B]``, empty where they are equal."""

    begin: Tensor
    end: Tensor

    @property
    def lengths(self) -> Tensor:
        return (self.end - self.begin).clamp(min=0)

    def window(self, low: float, high: float) -> "Spans":
        """The part between two fractions of each span, at least one column where there is one."""
        lengths = self.lengths
        # In integers: a product of floats may be just below the whole number that it should be, and
        # not every device has float64.
        (above, below), (over, under) = _ratio(low), _ratio(high)
        first = lengths * above // below
        first = torch.minimum(first, (lengths - 1).clamp(min=0))
        last = (lengths * over + under - 1) // under
        last = torch.minimum(torch.maximum(last, first + 1), lengths)
        return Spans(self.begin + first, self.begin + last)


def _ratio(share: float) -> tuple[int, int]:
    return Fraction(share).limit_denominator(10**6).as_integer_ratio()


def response_spans(batch: PairBatch) -> tuple[Spans, Spans]:
    """Response tokens of the chosen and of the rejected rows, without those with which both
    responses of a pair begin: their hidden states are the same on both sides, and would be pulled
    together and pushed apart.

    Args:
        batch: needs ``response_mask [2B, T]``; the mask is taken after padding and truncation.
    """
    mask = batch.response_mask
    begin, count = mask.long().argmax(1), mask.sum(1)
    (chosen, rejected), (many, few) = split_pairs(begin, batch), split_pairs(count, batch)
    ids, other = split_pairs(batch.input_ids, batch)
    offsets = torch.arange(mask.shape[1], device=mask.device)
    last = mask.shape[1] - 1
    ours = ids.gather(1, (chosen[:, None] + offsets).clamp(max=last))
    theirs = other.gather(1, (rejected[:, None] + offsets).clamp(max=last))
    same = (ours == theirs) & (offsets < torch.minimum(many, few)[:, None])
    shared = same.long().cumprod(1).sum(1)
    return Spans(chosen + shared, chosen + many), Spans(rejected + shared, rejected + few)


class PerRowGenerator:
    """Random numbers with a stream for every row, so that they do not depend on which process has
    which rows of a batch.

    Args:
        seeds: one a row.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, *shape: int) -> Tensor:
        """``[B, *shape]`` in [0, 1), float64."""
        rows = [
            torch.rand(shape, generator=stream, dtype=torch.float64) for stream in self._streams
        ]
        return torch.stack(rows) if rows else torch.empty(0, *shape, dtype=torch.float64)


def draw(begin: Tensor, end: Tensor, count: int, draws: PerRowGenerator) -> Tensor:
    """``[B, count]`` columns, uniform with replacement in ``begin ≤ column < end``.

    ``begin`` and ``end`` are ``[B]`` or ``[B, count]``. A row with an empty span gets ``begin``
    (clamped to 0), which the caller must mask out.
    """
    if begin.dim() == 1:
        begin, end = begin[:, None], end[:, None]
    sizes = (end - begin).clamp(min=1).expand(-1, count)
    # Of 2⁴⁰ths, because not every device has float64.
    noise = (draws.uniform(count) * 2**_BITS).long().to(sizes.device)
    steps = torch.minimum((noise * sizes) >> _BITS, sizes - 1)
    return (begin + steps).clamp(min=0)


def draw_future(
    sources: Spans, goals: Spans, count: int, draws: PerRowGenerator, *, shared_split: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Source columns and strictly later goal columns of the same row.

    Args:
        sources, goals: where each may lie.
        count: pairs a row.
        draws: one stream a row.
        shared_split: all goals of a row come after all its sources (needed when the goals of a
            row are averaged); else each goal only after its own source.

    Returns:
        sources ``[B, count]``, goals ``[B, count]``, and ``[B]`` whether the row has a source with
        a goal after it.
    """
    stop = torch.minimum(sources.end, goals.end - 1)
    valid = sources.begin < stop
    if shared_split:
        split = draw(sources.begin, stop, 1, draws)[:, 0]
        source = draw(sources.begin, split + 1, count, draws)
        after = torch.maximum(split + 1, goals.begin)
    else:
        source = draw(sources.begin, stop, count, draws)
        after = torch.maximum(source + 1, goals.begin[:, None])
    end = goals.end if after.dim() == 1 else goals.end[:, None].expand_as(after)
    goal = draw(after, end, count, draws)
    # Columns of rows without a pair may lie past the row; keep them readable, they are masked.
    zero = torch.zeros((), dtype=source.dtype, device=source.device)
    return source.where(valid[:, None], zero), goal.where(valid[:, None], zero), valid
