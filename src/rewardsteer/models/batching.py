"""Rows of different lengths into batches that fit."""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsteer.errors import ConfigError


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
