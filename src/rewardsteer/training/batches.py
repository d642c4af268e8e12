"""Batch samplers: random order or grouped by length, sharded over processes.

transformers' `LengthGroupedSampler` and accelerate's `BatchSamplerShard` are not used. The first
knows no token budget and depends on a generator's state, so a resumed epoch could hold other
batches; the second repeats rows where the number of processes does not divide an epoch. Here a seed
and an epoch decide every batch, and every row is read once.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Sampler

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.batching import batches
from rewardsteer.training.rows import Lengths
from rewardsteer.training.shared_config import OptimiserConfig


class RowBatches(Sampler[list[int]]):
    """Row numbers in batches of so many rows; all rows once an epoch.

    The batches of all processes at one step are consecutive, and together hold the same rows
    whatever the number of processes. The last rows are distributed evenly; a process for which no
    row is left gets an empty batch.

    Args:
        count: rows there are.
        rows: rows a batch.
        seed: with the epoch, of the order; None keeps the rows' own.
        processes: how many share the batches.

    Attributes:
        epoch: the one that is read next.
    """

    def __init__(
        self, count: int, rows: int, *, seed: int | None = None, processes: int = 1
    ) -> None:
        self.count, self.rows = count, rows
        self.seed, self.processes, self.epoch = seed, processes, 0

    def __len__(self) -> int:
        """Batches of an epoch, over all processes."""
        return -(-self.count // (self.rows * self.processes)) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.count))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
        together = self.rows * self.processes
        for start in range(0, self.count, together):
            part = order[start : start + together]
            for process in range(self.processes):
                low, high = process * len(part), (process + 1) * len(part)
                yield part[low // self.processes : high // self.processes]


class LengthBatches(Sampler[list[int]]):
    """Row numbers in batches of rows of similar length; all rows once an epoch.

    Each epoch assigns rows of equal length to batches at random and shuffles the batches, except
    the longest: it comes first, so that a batch that does not fit into memory fails at once. Every
    epoch has the same number of batches.

    Batch i goes to process i modulo ``processes``. Batches of one step have similar lengths, so no
    process waits long for another. Their number is a multiple of ``processes``: the batches with
    most rows are halved until it is. Where no batch has two rows left, empty ones are added.

    Args:
        lengths: ``[N, S]`` tokens of the S sequences of each row, 0 where a row has fewer. A batch
            of b rows takes at most b · S · (its longest sequence) tokens, padding included.
        rows: at most so many rows a batch; None: any number.
        tokens: at most so many tokens a batch; a longer row stands alone. None: any number.
        seed: with the epoch, of the order.
        processes: how many share the batches.

    Attributes:
        epoch: the one that is read next.
    """

    def __init__(
        self, lengths: Lengths, *, rows: int | None = None, tokens: int | None = None,
        seed: int = 0, processes: int = 1,
    ) -> None:
        self.costs: list[int] = (lengths.max(axis=1) * lengths.shape[1]).tolist()
        self.rows, self.tokens = rows, tokens
        self.seed, self.processes, self.epoch = seed, processes, 0
        self._count = len(self._by_length(range(len(self.costs))))

    def __len__(self) -> int:
        """Batches of an epoch, over all processes."""
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        generator = random.Random(f"{self.seed}/{self.epoch}")
        order = list(range(len(self.costs)))
        generator.shuffle(order)
        found = self._by_length(order)
        starts = list(range(self.processes, len(found), self.processes))
        generator.shuffle(starts)
        for start in [0, *starts]:
            yield from found[start : start + self.processes]

    def _by_length(self, order: Sequence[int]) -> list[list[int]]:
        """Longest first; ``order`` decides between rows of equal length."""
        costs = [self.costs[row] for row in order]
        found = [
            [order[place] for place in batch]
            for batch in batches(costs, rows=self.rows, tokens=self.tokens)
        ]
        while len(found) % self.processes:
            largest = max(range(len(found)), key=lambda index: (len(found[index]), index))
            batch = found[largest]
            if len(batch) <= 1:
                found += [[]] * (-len(found) % self.processes)
                break
            half = len(batch) // 2
            found[largest : largest + 1] = [batch[:half], batch[half:]]
        return found


class ProcessBatches(Sampler[list[int]]):
    """The batches of one of several processes: every n-th of all, for n processes."""

    def __init__(self, batch_sampler: RowBatches | LengthBatches, process: int) -> None:
        self.batch_sampler = batch_sampler
        self.process = process

    def __len__(self) -> int:
        return len(self.batch_sampler) // self.batch_sampler.processes

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.batch_sampler, self.process, None, self.batch_sampler.processes)


def make_batches(
    lengths: Lengths, optimiser: OptimiserConfig, seed: int, processes: int
) -> RowBatches | LengthBatches:
    """The training batches that the settings ask for."""
    size = optimiser.per_device_train_batch_size
    if optimiser.batch_tokens is None and optimiser.train_sampling_strategy == "random":
        return RowBatches(len(lengths), size, seed=seed, processes=processes)
    rows = size if optimiser.batch_tokens is None else None
    return LengthBatches(
        lengths, rows=rows, tokens=optimiser.batch_tokens, seed=seed, processes=processes
    )


def padded_share(lengths: Lengths, order: Sequence[list[int]]) -> float:
    """Share of padding in rows padded to the longest of their batch."""
    computed = sum(lengths[batch].max() * (lengths[batch] > 0).sum() for batch in order if batch)
    return float(1 - lengths.sum() / computed)


def describe(
    lengths: Lengths, order: RowBatches | LengthBatches, batch_size: int, seed: int
) -> str:
    """A sentence on a phase's first epoch: rows, batches, tokens, and the share of padding in this
    order and in the other order."""
    other: RowBatches | LengthBatches
    if isinstance(order, RowBatches):
        other, name = LengthBatches(lengths, rows=batch_size, seed=seed), "by length"
    else:
        other, name = RowBatches(len(lengths), batch_size, seed=seed), "random order"
    kind = {1: "chosen responses", 2: "pairs"}.get(lengths.shape[1], "groups of responses")
    return (
        f"{len(lengths):,} {kind} of {lengths.sum(axis=1).mean():.0f} tokens in "
        f"{len(order):,} batches; padding {padded_share(lengths, list(order)):.0%} "
        f"({name}: {padded_share(lengths, list(other)):.0%})"
    )


def describe_packing(collate: PairCollator, rows: Any, batch_size: int) -> str:
    """A sentence on how much packing saves in the first few batches, in the rows' own order."""
    starts = range(0, min(len(rows), 8 * batch_size), batch_size)
    seen = [
        to_batch(collate([rows[i] for i in range(start, min(start + batch_size, len(rows)))]))
        for start in starts
    ]
    left = sum(batch.computed_tokens for batch in seen) / sum(batch.padded_tokens for batch in seen)
    packed = sum(batch.packing is not None for batch in seen)
    return (
        f"packing (shared prompts read once) leaves out {1 - left:.0%} of the places of padded "
        f"rows; it pays in {packed} of the first {len(seen)} batches"
    )
