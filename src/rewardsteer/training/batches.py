"""Training batches of rows of similar length, so that little of a batch is padding."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import TrainerCallback

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.batching import batches
from rewardsteer.training.config import OptimiserConfig

Lengths = NDArray[np.int64]


def read_lengths(rows: Any, *, paired: bool) -> Lengths:
    """Tokens of each response with its prompt, ``[N, 2]`` (chosen, rejected), or ``[N, 1]`` where
    only chosen ones are read.

    Args:
        rows: a `datasets.Dataset` or a list of rows of the store's schema.
        paired: whether rejected responses are read.
    """
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"][: 3 if paired else 2]
    if isinstance(rows, list):
        counts = np.array([[len(row[name]) for name in columns] for row in rows])
    else:
        import pyarrow.compute as pc

        tables = rows.select_columns(columns).with_format("arrow").iter(10_000)
        counts = np.concatenate([
            np.stack([pc.list_value_length(table[name]).to_numpy() for name in columns], axis=1)
            for table in tables
        ])
    lengths: Lengths = (counts[:, :1] + counts[:, 1:]).astype(np.int64)
    return lengths


class LengthBatches(Sampler[list[int]]):
    """Row numbers in batches of rows of similar length; all rows once an epoch.

    Rows of equal length are dealt to batches anew each epoch, and the order of batches is
    shuffled, but for the longest: it comes first, so that what does not fit into memory fails at
    once. Every epoch has the same number of batches.

    Batch i goes to process i modulo ``processes``. Batches that are read at the same time are
    neighbours in length, so no process waits long for another. Their number is a multiple of
    ``processes``: the batches with most rows are halved until it is. Only where no batch has two
    rows left does the loader have to repeat some.

    Args:
        lengths: ``[N, S]`` tokens of the S sequences of each row. A batch of b rows takes
            b · S · (its longest sequence) tokens, padding included.
        rows: at most so many rows a batch; None: any number.
        tokens: at most so many tokens a batch; a longer row stands alone. None: any number.
        seed: with the epoch, of the order.
        processes: how many share the batches.
    """

    def __init__(
        self, lengths: Lengths, *, rows: int | None = None, tokens: int | None = None,
        seed: int = 0, processes: int = 1,
    ) -> None:
        self.costs: list[int] = (lengths.max(axis=1) * lengths.shape[1]).tolist()
        self.rows = rows
        self.tokens = tokens
        self.seed = seed
        self.processes = processes
        self.epoch = 0
        self._count = len(self._by_length(range(len(self.costs))))

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is read next."""
        self.epoch = epoch

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
            if len(batch) == 1:
                break
            half = len(batch) // 2
            found[largest : largest + 1] = [batch[:half], batch[half:]]
        return found


class EpochCallback(TrainerCallback):
    """Tells the batches which epoch begins; accelerate does not pass that on to batches that it
    both shares among processes and skips after an interruption."""

    def __init__(self, order: LengthBatches) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer, also before the rest of an epoch that was interrupted."""
        self.order.set_epoch(int(state.epoch or 0))


def length_batches(
    lengths: Lengths, optimiser: OptimiserConfig, seed: int, processes: int
) -> LengthBatches | None:
    """The batches that the settings ask for; None for random ones of ``batch_size`` rows."""
    if optimiser.batch_tokens is None and optimiser.order == "random":
        return None
    rows = optimiser.batch_size if optimiser.batch_tokens is None else None
    return LengthBatches(
        lengths, rows=rows, tokens=optimiser.batch_tokens, seed=seed, processes=processes
    )


def padded_share(lengths: Lengths, order: Sequence[list[int]]) -> float:
    """Share of padding in rows padded to the longest of their batch."""
    computed = sum(lengths[batch].max() * lengths[batch].size for batch in order)
    return float(1 - lengths.sum() / computed)


def describe(
    lengths: Lengths, order: LengthBatches | None, batch_size: int, seed: int
) -> str:
    """A sentence on a phase's first epoch: rows, batches, tokens, and how much is padding, in this
    order and in the other one."""
    rows = list(range(len(lengths)))
    random.Random(seed).shuffle(rows)
    drawn = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    sorted_first = order or LengthBatches(lengths, rows=batch_size, seed=seed)
    by_length = padded_share(lengths, list(sorted_first))
    at_random = padded_share(lengths, drawn)
    used, other, name = (
        (at_random, by_length, "by length") if order is None
        else (by_length, at_random, "random order")
    )
    kind = "pairs" if lengths.shape[1] == 2 else "chosen responses"
    return (
        f"{len(lengths):,} {kind} of {lengths.sum(axis=1).mean():.0f} tokens in "
        f"{len(drawn) if order is None else len(order):,} batches; "
        f"padding {used:.0%} ({name}: {other:.0%})"
    )


def describe_packing(collate: PairCollator, rows: Any, batch_size: int) -> str:
    """A sentence on what packing saves, from the first few batches of rows as they come."""
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
