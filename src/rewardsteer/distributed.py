"""Means over the batches of all processes and of all gradient accumulation steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")

_EXCLUDED = ContextVar("excluded", default=False)
_NOTED: ContextVar[list[Tensor] | None] = ContextVar("noted", default=None)
_UPDATE: ContextVar[Iterator[Tensor] | None] = ContextVar("update", default=None)


def several_processes() -> bool:
    """Whether training runs in several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def excluded_from_reductions(excluded: bool) -> Iterator[None]:
    """Context in which values of this process have weight zero in all reductions.

    A process without rows left must still take part in the collective calls of other processes, so
    it processes a dummy row.
    """
    token = _EXCLUDED.set(excluded)
    try:
        yield
    finally:
        _EXCLUDED.reset(token)


@contextmanager
def noting_counts() -> Iterator[list[Tensor]]:
    """Context in which reductions compute and communicate nothing: `global_mean` and `of_update`
    only append their counts to the yielded list, in the order of the calls."""
    counts: list[Tensor] = []
    token = _NOTED.set(counts)
    try:
        yield counts
    finally:
        _NOTED.reset(token)


@contextmanager
def within_update(counts: Tensor | None) -> Iterator[None]:
    """Context in which a batch's means are its shares of the means of a whole update.

    Args:
        counts: ``[M]``, see `counting.count_terms`, summed over the update's batches and all
            processes; None: the batch is the update.
    """
    token = _UPDATE.set(None if counts is None else iter(counts))
    try:
        yield
    finally:
        _UPDATE.reset(token)


def global_mean(total: Tensor, count: Tensor, *, of_batch: bool = False) -> Tensor:
    """``Σ total / Σ count`` over all processes; with one process, ``total / count``. Within an
    update of several batches, Σ count is over all of them, and their results add up to its mean.

    Data-parallel training averages gradients over processes. A mean of local means gives rows of a
    short batch more weight; here every value has the same weight. The result's value is the global
    mean. After the averaging its gradient is that of the global mean, also through a nonlinear
    function such as a logarithm.

    Every process must call this the same number of times.

    Args:
        total: scalar sum of this process's values, differentiable.
        count: scalar number of them; 0 everywhere gives 0.
        of_batch: compute the mean of this batch alone, for nonlinear functions of the mean; apply
            `of_update` to their result.
    """
    noted, update = _NOTED.get(), None if of_batch else _UPDATE.get()
    if noted is not None:
        if not of_batch:
            noted.append(_own(count))
        return total * 0
    count = count.to(total)
    if _EXCLUDED.get():
        total, count = total * 0, count * 0
    if several_processes():
        sums = torch.stack([total.detach(), count])
        dist.all_reduce(sums)
        local = total * dist.get_world_size()
        total = local + (sums[0] - local.detach())
        count = sums[1]
    if update is not None:
        count = next(update).to(total)
    return total / count.clamp(min=1)


def of_update(loss: Tensor, count: Tensor) -> Tensor:
    """A batch's share of a loss that is averaged over an update's batches, weighted by their rows.

    Args:
        loss: scalar, the same on all processes.
        count: scalar number of this process's rows.
    """
    noted, update = _NOTED.get(), _UPDATE.get()
    if noted is not None:
        noted.append(_own(count))
        return torch.zeros_like(loss)
    if update is None:
        return loss
    own = _own(count).to(loss)
    if several_processes():
        dist.all_reduce(own)
    return loss * own / next(update).to(loss).clamp(min=1)


def _own(count: Tensor) -> Tensor:
    return torch.zeros_like(count) if _EXCLUDED.get() else count.detach().clone()


def gather_objects(own: T) -> list[T]:
    """The objects of all processes, in the order of processes; every process must call this."""
    if not several_processes():
        return [own]
    found = [own] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def gather_rows(rows: Tensor) -> Tensor:
    """Rows ``[N, …]`` of all processes, concatenated in the order of processes; differentiable, N
    may differ.

    A gradient with respect to another process's rows is sent back to that process. As with
    `global_mean`, every process must call this the same number of times.
    """
    if _EXCLUDED.get():
        rows = rows[:0]
    if not several_processes() or _NOTED.get() is not None:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        size = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, size)
        counts = [int(one) for one in sizes]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        context.begin, context.count = sum(counts[: dist.get_rank()]), len(rows)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[context.begin : context.begin + context.count]
