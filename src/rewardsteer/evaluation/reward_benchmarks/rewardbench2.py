"""RewardBench 2 (arXiv 2506.01937): best of four, and ties among several correct answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    RewardBenchmark,
    Scores,
    answered,
    mean_of,
    ratio,
    responses,
)

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
# Weights in the score of Ties: accuracy with several correct answers and with one; whether the
# correct answers' spread is below their lead, and below the smaller lead; the lead's relative size.
_WEIGHTS = np.array([0.30, 0.30, 0.20, 0.20, 0.01])


class RewardBench2(RewardBenchmark):
    """An item gives one point for the correct response of four; ties for the best share it."""

    hub = "allenai/reward-bench-2"
    source = "arXiv 2506.01937; allenai/reward-bench, scripts/run_v2.py"

    def read(self, row: Row, number: int, place: str) -> Item | None:
        require(row, ["id", "prompt", "chosen", "rejected", "subset"], place)
        right, wrong = responses(row, "chosen", place), responses(row, "rejected", place)
        if not right or not wrong:
            raise DataError(f"{place}: expected right and wrong responses, got none of one kind.")
        name, subset = str(row["id"]), str(row["subset"])
        if subset == "Ties" and name.partition(":")[0] not in ("ref", "tied"):
            raise DataError(f"{place}: expected an id of the form ref:N or tied:N, got {name!r}.")
        prompt, texts = answered(row["prompt"], [*right, *wrong], place)
        cluster = name if subset == "Ties" else repr(prompt)
        return Item(f"{subset}/{name}", prompt, texts, subset, cluster, {"right": len(right)})

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        found: list[Outcome] = []
        ties: dict[str, dict[str, _Tie]] = defaultdict(dict)
        for item, own in zip(items, scores, strict=True):
            if item.subset == "Ties":
                kind, _, number = item.cluster.partition(":")
                ties[number][kind] = _Tie(own, item.truth["right"])
                continue
            best = np.flatnonzero(own == own.max())
            points = float((best < item.truth["right"]).any()) / len(best)
            found.append(Outcome(item.subset, item.cluster, np.array([points, 1.0]), item.subset))
        found += [
            Outcome("Ties", f"Ties/{number}", _ties(pair), "Ties") for number, pair in ties.items()
        ]
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Scores of the subsets, and their unweighted mean where all six are there."""
        found = {name: ratio(own) for name, own in sums.items() if name != "Ties"}
        if "Ties" in sums and sums["Ties"][[1, 3, 7]].all():
            found["Ties"] = ties_score(sums["Ties"])
        mean = mean_of(found, SUBSETS)
        return found if mean is None else {"average": mean, **found}


def ties_score(sums: np.ndarray) -> float:
    """The score of Ties from its sums ``[8]``, see `_ties`."""
    accuracies = sums[[0, 2]] / sums[[1, 3]]
    return float(_WEIGHTS @ np.concatenate([accuracies, sums[4:7] / sums[7]]))


class _Tie:
    """From one prompt's scores: whether all correct responses beat the incorrect ones, the spread
    of the correct ones, and the lead of the lowest of them."""

    def __init__(self, scores: np.ndarray, count: int) -> None:
        right, wrong = scores[:count], scores[count:]
        self.accurate = float(right.min() > wrong.max())
        self.spread = float(right.max() - right.min())
        self.lead = float(right.min() - wrong.max())


def _ties(pair: Mapping[str, _Tie]) -> np.ndarray:
    """Sums ``[8]``: accuracy and count with several correct answers, the same with one; then for
    prompts with both: spread below the lead, below the smaller lead, margin, count."""
    sums = np.zeros(8)
    several, one = pair.get("tied"), pair.get("ref")
    if several is not None:
        sums[:2] = several.accurate, 1
    if one is not None:
        sums[2:4] = one.accurate, 1
    if several is not None and one is not None:
        least = min(one.lead, several.lead)
        # 0/0 counts as 0, and x/0 as the limit of tanh, ±1.
        relative = 0.0 if several.spread == least == 0 else float(
            np.tanh(np.divide(least, several.spread) - 1 if several.spread else
                    np.copysign(np.inf, least))
        )
        sums[4:] = several.lead > several.spread, least > several.spread, relative, 1
    return sums
