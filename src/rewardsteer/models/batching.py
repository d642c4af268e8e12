"""Rows in batches: which share one, how they are padded, how they enter and leave."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rewardsteer.errors import ConfigError

T = TypeVar("T")


def batches(
    lengths: Sequence[int], *, rows: int | None, tokens: int | None
) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, longest first.

    Longest first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: tokens of each row.
        rows: at most so many rows a batch; None: any number.
        tokens: at most so many tokens a batch, padding included; a longer row stands alone. None:
            any number.

    Raises:
        ConfigError: ``rows`` is no whole number from 1 on.
    """
    check_batch_size(rows)
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batch: list[int] = []
    for row in order:
        full = rows is not None and len(batch) == rows
        if batch and tokens is not None:
            full = full or (len(batch) + 1) * lengths[batch[0]] > tokens
        if full:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def check_batch_size(rows: Any) -> None:
    """Raise `ConfigError` unless a batch size is None or a whole number from 1 on."""
    whole = isinstance(rows, Integral) and not isinstance(rows, bool)
    if rows is not None and not (whole and rows >= 1):
        raise ConfigError(f"Expected batch_size= as a whole number from 1 on, got {rows!r}.")


def left_pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]`` with zeros on the left."""
    return _padded(rows, left=True)


def right_pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]`` with zeros on the right."""
    return _padded(rows, left=False)


def _padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    # Row by row through numpy takes a twentieth of the time of a tensor of nested lists, which
    # decoding would spend whenever a row enters or leaves.
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        begin = width - len(row) if left else 0
        ids[place, begin : begin + len(row)] = row
        mask[place, begin : begin + len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def refill(kept: Sequence[T | None], coming: Iterable[tuple[int, T]]) -> list[tuple[int, T]]:
    """Rows of a cache after some have left it and others enter.

    Each row stands with the number of the row whose states it takes. New rows take the places of
    those that left, or new places at the end. The last row moves to a place that stays free: that
    costs less than shifting all rows.

    Args:
        kept: the rows so far; None for one that leaves.
        coming: new rows, with the rows whose states they copy, or
            `rewardsteer.models.prefix_state.EMPTY_ROW`.
    """
    waiting, before = deque(coming), list(enumerate(kept))
    after: list[tuple[int, T]] = []
    while len(after) < len(before):
        place, row = before[len(after)]
        if row is None:
            place, row = waiting.popleft() if waiting else before.pop()
        if row is not None:
            after.append((place, row))
    return [*after, *waiting]
