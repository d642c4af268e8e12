"""Tables of agreement: rewards with ratings and labels, a guide with its teacher, labels with the
grading of answers."""

from collections.abc import Mapping
from typing import Any

from rewardsteer.reports.sections import Block, Section, Table
from rewardsteer.reports.tables import LOW_HIGH, between

_RESPONSES = ("pearson", "spearman", "auroc", "pair_accuracy")
RESPONSE_COLUMNS = (
    "number", "responses", "prompts",
    *(f"{name.replace('_', ' ')} (95 %)" for name in _RESPONSES),
)
GUIDE_COLUMNS = ("figure", "value (95 %)", "positions")
ANSWER_COLUMNS = (
    "benchmark", "solutions", "agreement, predicted answer", "agreement, extracted answer",
)


def response_rows(numbers: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row per rating or label of ``evaluate responses`` under `RESPONSE_COLUMNS`."""
    return [
        [name, str(own["count"]), str(own["prompts"]), *(between(own, one) for one in _RESPONSES)]
        for name, own in numbers.items()
    ]


def guide_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row per figure of ``evaluate guide`` under `GUIDE_COLUMNS`; a figure is null in the file
    where there were too few positions."""
    known = {
        name: {key: value for key, value in own.items() if value is not None and value == value}
        for name, own in figures.items()
    }
    return [
        [name.replace("_", " "), between(own, "value", ends=LOW_HIGH), f"{own['count']:.0f}"]
        for name, own in known.items()
    ]


def answer_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row per benchmark of ``evaluate answers`` under `ANSWER_COLUMNS`."""
    return [
        [name, str(one["solutions"]), f"{one['predicted']:.3f}", f"{one['extracted']:.3f}"]
        for name, one in figures.items()
    ]


def agreement_section(runs: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """The tables of runs that have one; None without any."""
    blocks: list[Block] = []
    for name, metrics in runs.items():
        if "numbers" in metrics:
            blocks.append(Table(
                f"{name}: agreement of the rewards of {metrics['reward_model']} with the numbers "
                "of the responses. Pair accuracy: share of the pairs of responses to one prompt "
                "that both order in the same way.",
                RESPONSE_COLUMNS, response_rows(metrics["numbers"]),
            ))
        elif "teacher" in metrics:
            blocks.append(Table(
                f"{name}: the guidance of {metrics['reward_model']} compared with that of its "
                f"teacher, {metrics['teacher']}, at weight {metrics['weight']:g}.",
                GUIDE_COLUMNS, guide_rows(metrics["figures"]),
            ))
        else:
            blocks.append(Table(
                f"{name}: share of solutions whose label agrees with the grading of their answers.",
                ANSWER_COLUMNS, answer_rows(metrics),
            ))
    return Section("Agreement", "agreement", blocks) if blocks else None
