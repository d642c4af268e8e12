"""ProcessBench (arXiv 2412.06559): find the first incorrect step of a solution, if there is one."""

from collections.abc import Mapping, Sequence

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.turns import read_prompt
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    Scores,
    StepBenchmark,
    mean_of,
    texts,
)
from rewardsteer.outputs import given

SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")


class ProcessBench(StepBenchmark):
    """The first step that scores below the threshold is the predicted first incorrect step."""

    hub = "Qwen/ProcessBench"
    split = "+".join(SUBSETS)
    source = "arXiv 2412.06559"

    def read(self, row: Row, number: int, place: str) -> Item | None:
        require(row, ["problem", "steps", "label"], place)
        label, steps = row["label"], texts(row, "steps", place)
        if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
            raise DataError(
                f"{place}: expected in label the index of the first wrong step, or -1; got "
                f"{label!r} for {len(steps)} steps."
            )
        name = str(given(row, "id", number))
        subset = name.rpartition("-")[0] or "all"
        return Item(
            name, read_prompt(row["problem"], place), tuple(steps), subset, str(row["problem"]),
            {"label": label},
        )

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        """Sums: hits and count of solutions with an incorrect step, then of those without."""
        found = []
        for item, own in zip(items, scores, strict=True):
            hit = float(first_below(own, self.threshold) == item.truth["label"])
            wrong = item.truth["label"] >= 0
            sums = np.array([hit, 1.0, 0.0, 0.0] if wrong else [0.0, 0.0, hit, 1.0])
            found.append(Outcome(item.subset, item.cluster, sums, item.subset))
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """F1 by subset: the harmonic mean of the accuracies on incorrect and correct solutions."""
        found: dict[str, float] = {}
        for name, (hits, wrong, kept, right) in sums.items():
            error = hits / wrong if wrong else float("nan")
            correct = kept / right if right else float("nan")
            total = error + correct
            found |= {
                f"{name}, F1": 2 * error * correct / total if total else 0.0,
                f"{name}, error": error, f"{name}, correct": correct,
            }
        mean = mean_of(found, [f"{name}, F1" for name in SUBSETS])
        return found if mean is None else {"F1": mean, **found}


def first_below(scores: np.ndarray, threshold: float) -> int:
    """Index of the first score below the threshold; -1 where there is none."""
    below = np.flatnonzero(scores < threshold)
    return int(below[0]) if len(below) else -1
