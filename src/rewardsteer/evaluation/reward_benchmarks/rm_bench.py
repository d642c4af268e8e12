"""RM-Bench (arXiv 2410.16184): correct against incorrect responses in three styles of writing."""

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
    responses,
)
from rewardsteer.outputs import given

DOMAINS = ("chat", "math", "code", "safety")
STYLES = 3


class RmBench(RewardBenchmark):
    """Responses are concise, detailed in plain text, and detailed in Markdown; every correct one is
    compared with every incorrect one, and must score higher."""

    hub = "THU-KEG/RM-Bench"
    split = "train"
    source = "arXiv 2410.16184"

    def read(self, row: Row, number: int, place: str) -> Item | None:
        require(row, ["prompt", "chosen", "rejected"], place)
        right, wrong = responses(row, "chosen", place), responses(row, "rejected", place)
        if len(right) != STYLES or len(wrong) != STYLES:
            raise DataError(
                f"{place}: expected {STYLES} chosen and {STYLES} rejected responses, got "
                f"{len(right)} and {len(wrong)}."
            )
        domain = str(row.get("domain") or row.get("subset") or "")
        # The two halves of safety are pooled.
        domain = "safety" if domain.startswith("safety") else domain
        if domain not in DOMAINS:
            raise DataError(
                f"{place}: expected a domain ({', '.join(DOMAINS)}) in domain, got {domain!r}."
            )
        name = str(given(row, "id", number))
        prompt, texts = answered(row["prompt"], [*right, *wrong], place)
        return Item(f"{domain}/{name}", prompt, texts, domain, repr(prompt))

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        found = []
        for item, own in zip(items, scores, strict=True):
            wins = own[:STYLES, None] > own[None, STYLES:]
            sums = np.append(wins.astype(float).ravel(), 1.0)
            found.append(Outcome(item.subset, item.cluster, sums, item.subset))
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Hard: the incorrect response has the richer style; normal: both have the same; easy: the
        correct one has it. Means over domains, where all four are there."""
        matrices = {name: (own[:-1] / own[-1]).reshape(STYLES, STYLES)
                    for name, own in sums.items() if own[-1]}
        found: dict[str, float] = {}
        for name, matrix in matrices.items():
            levels = difficulties(matrix)
            found[name] = float(np.mean(list(levels.values())))
            found |= {f"{name}, {level}": value for level, value in levels.items()}
        mean = mean_of(found, DOMAINS)
        if mean is None:
            return found
        over = {
            level: float(np.mean([found[f"{name}, {level}"] for name in DOMAINS]))
            for level in ("easy", "normal", "hard")
        }
        return {"average": mean, **over, **found}


def difficulties(matrix: np.ndarray) -> dict[str, float]:
    """Easy, normal and hard accuracy of a matrix ``[chosen style, rejected style]``."""
    above = np.triu_indices(STYLES, 1)
    return {
        "easy": float(matrix.T[above].mean()), "normal": float(np.diag(matrix).mean()),
        "hard": float(matrix[above].mean()),
    }
