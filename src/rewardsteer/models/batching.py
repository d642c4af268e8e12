"""Rows of different lengths into batches that fit."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


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
    """
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


def right_pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]`` with zeros on the right."""
    lengths = [len(row) for row in rows]
    width = max(lengths)
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return torch.tensor(padded, dtype=torch.long), mask.long()
