"""Sums of metrics, tokens and seconds between two log lines."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rewardsteer.distributed import gather_objects
from rewardsteer.tensors import PairBatch


class MetricAccumulator:
    """Sums of one log interval in one process; `figures` adds those of all processes.

    Real tokens are those of the rows; filled places are the computed positions that hold a token,
    which are fewer where rows share a beginning.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._began: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, float] = defaultdict(float)
        self._tokens = torch.zeros(2, dtype=torch.long, device=self.device)  # real, filled
        self._computed = self._padded = 0
        self._seconds = 0.0

    def start(self) -> None:
        """Start the clock, until `pause`."""
        if self._began is None:
            self._began = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def add(
        self, batch: PairBatch, metrics: Mapping[str, Tensor], terms: Mapping[str, Tensor],
        share: float,
    ) -> None:
        """Count a training batch.

        Args:
            batch: the batch.
            metrics: means over its rows.
            terms: the batch's parts of an update's figures, the same on all processes.
            share: of the update, one divided by the number of its batches.
        """
        for name, value in terms.items():
            self._add(name, value.float())
            self._rows[name] += share
        if batch.is_dummy:
            return
        real = batch.attention_mask.sum()
        filled = real if batch.packing is None else (batch.packing.blocks >= 0).sum()
        # Summed on the device: reading a number each step would make a GPU wait.
        self._tokens = self._tokens + torch.stack([real, filled])
        self._computed += batch.computed_tokens
        self._padded += batch.padded_tokens
        for name, value in metrics.items():
            rows = len(batch.margin)
            self._add(name, value.float() * rows)
            self._rows[name] += rows

    def _add(self, name: str, value: Tensor) -> None:
        """Add to a sum. A sum begins with its first value: a zero would be copied from the host,
        for which a GPU waits."""
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, for a checkpoint."""
        self.pause()
        return {
            "sums": {name: total.item() for name, total in self._sums.items()},
            "rows": dict(self._rows),
            "tokens": self._tokens.tolist(),
            "computed": self._computed, "padded": self._padded, "seconds": self._seconds,
        }

    def restore(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Continue from the states of one or several processes."""
        total = _sum_up(states)
        self._sums = {name: self._number(value) for name, value in total["sums"].items()}
        self._rows = defaultdict(float, total["rows"])
        self._tokens = torch.tensor(total["tokens"], device=self.device)
        self._computed, self._padded = total["computed"], total["padded"]
        self._seconds = total["seconds"]

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float32, device=self.device)

    def figures(self) -> dict[str, float]:
        """The objective's figures, ``padding`` (share of computed positions without a token),
        ``tokens_saved`` (share of the positions of padded rows that packing left out) and
        ``tokens_per_second`` (real ones), over all processes; starts a new interval."""
        states = gather_objects(self.state())
        total = _sum_up(states)
        self._reset()
        found = {name: value / total["rows"][name] for name, value in total["sums"].items()}
        real, filled = total["tokens"]
        found["padding"] = 1 - filled / total["computed"]
        found["tokens_saved"] = 1 - total["computed"] / total["padded"]
        found["tokens_per_second"] = real * len(states) / total["seconds"]
        return found


def _sum_up(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {
        "sums": defaultdict(float), "rows": defaultdict(int), "tokens": [0, 0],
        "computed": 0, "padded": 0, "seconds": 0.0,
    }
    for state in states:
        for part in ("sums", "rows"):
            for name, value in state[part].items():
                total[part][name] += value
        total["tokens"] = [a + b for a, b in zip(total["tokens"], state["tokens"], strict=True)]
        for name in ("computed", "padded", "seconds"):
            total[name] += state[name]
    return total
