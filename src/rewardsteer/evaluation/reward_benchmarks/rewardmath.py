"""RewardMATH (arXiv 2410.01729): one correct solution of a problem among ten."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    RewardBenchmark,
    Scores,
    text,
    texts,
)
from rewardsteer.outputs import given

# The writer of the correct solution.
RIGHT = "human_to_GPT-4"


class RewardMath(RewardBenchmark):
    """The correct solution must score higher than each incorrect one."""

    hub = "RewardMATH/RewardMATH"
    split = "train"
    source = "arXiv 2410.01729"

    def items(self, rows: Iterator[tuple[str, Row]]) -> list[Item]:
        """One item per problem, its correct solution first; rows hold one solution each.

        Raises:
            DataError: names the malformed row, or a problem without exactly one correct solution.
        """
        problems: dict[str, list[tuple[bool, str, str]]] = defaultdict(list)
        for place, row in rows:
            require(row, ["problem", "eval_solution", "solution_reference"], place)
            solution = row["eval_solution"]
            written = solution if isinstance(solution, str) else "\n\n".join(
                texts(row, "eval_solution", place)
            )
            name = str(given(row, "problem_id", row["problem"]))
            problems[name].append(
                (row["solution_reference"] == RIGHT, text(row, "problem", place), written)
            )
        return [self._item(name, solutions) for name, solutions in problems.items()]

    def _item(self, name: str, solutions: Sequence[tuple[bool, str, str]]) -> Item:
        ordered = sorted(solutions, key=lambda one: not one[0])
        if sum(right for right, _, _ in ordered) != 1 or len(ordered) < 2:
            raise DataError(
                f"Expected one right solution ({RIGHT}) and wrong ones of the problem {name}, got "
                f"{sum(right for right, _, _ in ordered)} among {len(ordered)}."
            )
        return Item(name, ordered[0][1], tuple(one[2] for one in ordered), "all", name)

    def read(self, row: Row, number: int, place: str) -> Item | None:
        raise NotImplementedError("several rows make an item")

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        """Sums: accuracy, accuracy where a tie counts, reciprocal rank (in a tie the correct one
        ranks last), count."""
        found = []
        for item, own in zip(items, scores, strict=True):
            right, wrong = own[0], own[1:]
            rank = 1 + int((wrong >= right).sum())
            sums = [right > wrong.max(), right >= wrong.max(), 1 / rank, 1]
            found.append(Outcome(item.subset, item.cluster, np.array(sums, dtype=float)))
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        whole = np.sum(list(sums.values()), axis=0)
        names = ("accuracy", "accuracy with ties", "mean reciprocal rank")
        return {name: float(value / whole[3]) for name, value in zip(names, whole, strict=False)}
