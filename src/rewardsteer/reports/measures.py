"""Which command wrote a ``metrics.json``, told by its content."""

from pathlib import Path
from typing import Any

from rewardsteer.errors import DataError


def sort_metrics(metrics: Any, place: Path) -> dict[str, dict[str, Any]]:
    """The content of ``metrics.json`` under the name of the field of `Run` that holds it; empty
    where no command of this package wrote it.

    Raises:
        DataError: figures of an earlier version, whose votes were counted otherwise.
    """
    if not isinstance(metrics, dict):
        return {}
    groups = {key: value for key, value in metrics.items() if isinstance(value, dict)}
    if {"subsets", "all"} <= metrics.keys():
        return {"preference": metrics}
    if "numbers" in metrics or {"figures", "teacher"} <= metrics.keys():
        return {"agreement": metrics}
    if groups and all({"predicted", "extracted"} <= one.keys() for one in groups.values()):
        return {"agreement": metrics}
    if groups and all(map(_is_benchmark, groups.values())):
        return {"benchmarks": metrics}
    solutions = {key: one for key, one in groups.items() if "solutions_per_question" in one}
    _refuse_older(solutions, place)
    return {"correctness": solutions}


def _is_benchmark(models: dict[str, Any]) -> bool:
    """Whether a value is figures by model, each with a score and its number of questions."""
    figures = [one for own in models.values() if isinstance(own, dict) for one in own.values()]
    return bool(figures) and all(
        isinstance(one, dict) and {"score", "questions"} <= one.keys() for one in figures
    )


def _refuse_older(correctness: dict[str, Any], place: Path) -> None:
    for benchmark, figures in correctness.items():
        if any("questions" not in row for row in figures.get("by_samples", [])):
            raise DataError(
                f"The figures of {benchmark} in {place} are of an earlier version, whose votes do "
                "not say of how many questions they are; run 'rewardsteer evaluate correctness' on "
                "its scores again."
            )
