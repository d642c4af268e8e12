"""Stop on non-finite losses or gradients, and log loss spikes."""

import logging
import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from rewardsteer.distributed import gather_objects, several_processes
from rewardsteer.errors import NonFiniteError
from rewardsteer.outputs import write_json

logger = logging.getLogger(__name__)

BAD_BATCH = "nonfinite_batch.json"
# Updates whose losses are compared with, and the fewest of them before a loss can be a spike.
WINDOW, FEWEST = 50, 10
_SHOWN = 8


def format_ids(row_ids: Sequence[str]) -> str:
    """The first few ids, for a message."""
    return ", ".join(row_ids[:_SHOWN]) + (", …" if len(row_ids) > _SHOWN else "")


def raise_nonfinite(
    what: str, value: float, step: int, row_ids: Sequence[str], suspects: Sequence[str], out: Path
) -> None:
    """Write the ids of a bad update's rows to a file and stop; every process calls this.

    Args:
        what: ``loss`` or ``gradient``.
        value: NaN or infinite.
        step: number of the update, from 1.
        row_ids: rows of this process in it.
        suspects: those of them whose own rewards are not finite.
        out: folder for the record.

    Raises:
        NonFiniteError: always.
    """
    parts = gather_objects((list(row_ids), list(suspects)))
    rows = [row for part, _ in parts for row in part]
    bad = [row for _, part in parts for row in part]
    place = out / BAD_BATCH
    if not several_processes() or dist.get_rank() == 0:
        write_json(place, {
            "step": step, "what": what, "value": str(value), "row_ids": rows, "suspects": bad,
        })
    raise NonFiniteError(
        f"The {what} became {value} at update {step}; training stopped and earlier checkpoints are "
        f"kept. The batch held rows {format_ids(bad or rows)} (all in {place}). Lower the learning "
        "rate or look at these rows, then go on with resume=True (--resume)."
    )


class Losses:
    """The losses of one update's batches, kept on the device until `take`."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Sequence[str], Tensor]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, loss: Tensor, row_ids: Sequence[str], suspects: Tensor) -> None:
        """Keep a batch's ``loss []``, and which rows ``[B]`` have rewards that are not finite;
        ``row_ids`` is empty where the batch is a dummy."""
        self._batches.append((loss.detach(), row_ids, suspects))

    def take(self) -> tuple[float, list[str]]:
        """Their sum, or the first that is not finite and the rows that may be the cause; clears
        them. Waits for the device once."""
        kept, self._batches = self._batches, []
        losses = torch.stack([loss for loss, *_ in kept]).tolist()
        bad = [loss for loss in losses if not math.isfinite(loss)]
        if not bad:
            return sum(losses), []
        return bad[0], [
            row for _, row_ids, marks in kept if row_ids
            for row, marked in zip(row_ids, marks.tolist(), strict=True) if marked
        ]


class LossSpikeDetector:
    """Finds updates whose loss exceeds the last 50 losses by far.

    Args:
        factor: how many times the spread of the losses (1.4826 times the median distance from
            their median, the standard deviation of a normal distribution) it must lie above their
            median.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def state(self) -> list[float]:
        """The latest losses, for a checkpoint."""
        return list(self._losses)

    def restore(self, losses: Iterable[float]) -> None:
        """Continue from `state`."""
        self._losses = deque(losses, maxlen=WINDOW)

    def note(self, loss: float) -> float | None:
        """Add an update's loss; returns the median loss where it is a spike, else None."""
        usual = None
        if len(self._losses) >= FEWEST:
            middle = statistics.median(self._losses)
            spread = 1.4826 * statistics.median(abs(one - middle) for one in self._losses)
            # With losses that hardly change, every loss would be a spike.
            if loss > middle + self.factor * max(spread, 1e-3 * abs(middle)):
                usual = middle
        if math.isfinite(loss):
            self._losses.append(loss)
        return usual
