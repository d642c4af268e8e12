"""PRMBench (arXiv 2501.03124): the incorrect steps of a solution, by kind of error."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.turns import read_prompt
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    Scores,
    StepBenchmark,
    texts,
)

# The published names of the classes, "redundency" included.
ASPECTS = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
# The class whose solutions have no incorrect step.
_ALL_RIGHT = "multi_solutions"
_UNDEFINED = -1.0


class PrmBench(StepBenchmark):
    """A step with a score at or above the threshold is predicted to be correct."""

    hub = "hitsmy/PRMBench_Preview"
    split = "train"
    source = "arXiv 2501.03124"

    def items(self, rows: Iterator[tuple[str, Row]]) -> list[Item]:
        """The items; rows with the same class and idx count once, as published."""
        seen: set[tuple[str, str]] = set()

        def fresh() -> Iterator[tuple[str, Row]]:
            for place, row in rows:
                key = (str(row.get("classification")), str(row.get("idx")))
                if key not in seen:
                    seen.add(key)
                    yield place, row

        return super().items(fresh())

    def read(self, row: Row, number: int, place: str) -> Item | None:
        fields = ["classification", "idx", "modified_process", "error_steps"]
        require(row, [*fields, "original_question"], place)
        steps, errors = texts(row, "modified_process", place), row["error_steps"]
        if not isinstance(errors, list):
            raise DataError(f"{place}: expected a list of step numbers in error_steps.")
        question = row.get("modified_question") or row["original_question"]
        subset = str(row["classification"])
        return Item(
            f"{subset}/{row['idx']}", read_prompt(question, place), tuple(steps), subset,
            str(row["original_question"]),
            # Step numbers start at 1; some published ones lie beyond the last step.
            {"wrong": tuple(int(one) - 1 for one in errors if 1 <= int(one) <= len(steps))},
        )

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        """Sums: correct steps predicted correct, incorrect ones predicted correct, incorrect ones
        predicted incorrect, correct ones predicted incorrect; first incorrect steps found, count.
        """
        found = []
        for item, own in zip(items, scores, strict=True):
            wrong = np.zeros(len(own), dtype=bool)
            wrong[[one for one in item.truth["wrong"] if one < len(own)]] = True
            said = own >= self.threshold
            first = min(item.truth["wrong"], default=None)
            hit = first is not None and first < len(own) and not said[first]
            sums = [(~wrong & said).sum(), (wrong & said).sum(), (wrong & ~said).sum(),
                    (~wrong & ~said).sum(), hit, first is not None]
            found.append(Outcome(item.subset, item.cluster, np.array(sums, dtype=float)))
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """PRMScore (the mean of the F1 of correct and of incorrect steps) over all steps, by aspect
        and by class, and the share of first incorrect steps found. The class without incorrect
        steps has the F1 of correct steps alone."""
        whole = np.sum(list(sums.values()), axis=0)
        right, wrong = f1(whole)
        found = {"PRMScore": (right + wrong) / 2, "F1": right, "negative F1": wrong}
        if whole[5]:
            found["first error accuracy"] = float(whole[4] / whole[5])
        classes = {}
        for name, own in sums.items():
            right, wrong = f1(own)
            classes[name] = right if name == _ALL_RIGHT else (right + wrong) / 2
        for aspect, names in ASPECTS.items():
            if all(name in classes for name in names):
                found[aspect] = float(np.mean([classes[name] for name in names]))
        return found | classes


def f1(sums: np.ndarray) -> tuple[float, float]:
    """F1 of correct and of incorrect steps from the four counts of `PrmBench.outcomes`; -1 where it
    is undefined, as published."""
    said, missed, found, lost = (float(one) for one in sums[:4])
    right = 2 * said + missed + lost
    wrong = 2 * found + missed + lost
    return (
        2 * said / right if right else _UNDEFINED, 2 * found / wrong if wrong else _UNDEFINED,
    )
