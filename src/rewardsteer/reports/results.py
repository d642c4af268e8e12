"""The content of result folders, and which command wrote a ``metrics.json``."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rewardsteer.errors import DataError
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.records import EvalRecord


@dataclass
class Run:
    """One result folder.

    Attributes:
        folder: its path; for figures over several runs, the path of their file.
        training: log lines of a training run; else none.
        preference: content of ``metrics.json`` of ``evaluate preference``.
        correctness: that of ``evaluate correctness``, by benchmark.
        benchmarks: that of ``evaluate benchmark``, by benchmark and model.
        agreement: that of ``evaluate responses``, ``guide`` or ``answers``.
        comparison: content of ``summary.json``.
        records: the first records of each method of a comparison.
        outcomes: the figures of all records of each method of a comparison.
        over_runs: content of ``seeds.json`` or of the file of ``evaluate runs``.
        overoptimization: content of ``overoptimization.json``.
        inspections: completions token by token.
        settings: the settings of the run, as plain values.
    """

    name: str
    folder: Path
    training: list[dict[str, Any]] = field(default_factory=list)
    preference: dict[str, Any] | None = None
    correctness: dict[str, Any] | None = None
    benchmarks: dict[str, Any] | None = None
    agreement: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    records: dict[str, list[EvalRecord]] = field(default_factory=dict)
    outcomes: dict[str, list["Outcome"]] = field(default_factory=dict)
    over_runs: dict[str, Any] | None = None
    overoptimization: dict[str, Any] | None = None
    inspections: list[Inspection] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


class Outcome(NamedTuple):
    """The part of a record that a page keeps.

    Attributes:
        prompt: the beginning of its text.
        length: length of the response in characters.
        tokens: number of tokens of the response.
        metrics: metrics by name.
    """

    id: str
    prompt: str
    length: int
    tokens: int
    metrics: dict[str, float]


def sort_metrics(metrics: Any, place: Path) -> dict[str, dict[str, Any]]:
    """The content of ``metrics.json`` under the name of its field in `Run`, which is recognised by
    the content; empty for a file of another program.

    Raises:
        DataError: figures of an earlier version, which counted votes differently.
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
                f"The results of {benchmark} in {place} were written by an earlier version, "
                "without the number of questions of its votes; run 'rewardsteer evaluate "
                "correctness' on its scores again."
            )


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested values as text, by dotted name."""
    if isinstance(values, dict) and values:
        found: dict[str, str] = {}
        for name, value in values.items():
            found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
        return found
    return {prefix: values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)}
