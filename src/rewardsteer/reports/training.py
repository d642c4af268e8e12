"""Training curves, from the log lines of runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewardsteer.reports.plots import Series, curves
from rewardsteer.reports.sections import (
    NOTHING,
    Block,
    Figure,
    Figures,
    Prose,
    Section,
    Table,
)

Rows = Sequence[Mapping[str, Any]]

# Figure in the log → axis and caption; only those that some run has are drawn.
CURVES = {
    "loss": ("loss", "Mean of the objective over the log interval. Losses of different objectives "
             "are not comparable, so the line breaks between phases."),
    "accuracy": ("training accuracy", "Share of the pairs of the log interval whose "
                 "chosen response has the higher reward; ties count one half."),
    "eval_accuracy": ("held-out accuracy", "Accuracy during training on pairs that are not "
                      "trained on."),
    "constraint_violation": ("constraint violation", "Mean distance between a prefix's reward and "
                             "that of its best one-token extension."),
    "learning_rate": ("learning rate", "Each phase restarts the schedule."),
    "tokens_per_second": ("tokens per second", "Real tokens, without evaluation time."),
}
# Ratio of the largest to the least loss above which a plot's axis is logarithmic.
_WIDE = 20
COLUMNS = ("run", "updates", "phases", "last loss", "accuracy", "held-out accuracy",
           "tokens per second", "peak memory, MiB")


def training_section(runs: Mapping[str, Rows]) -> Section | None:
    """Training curves of all runs; None without any."""
    if not runs:
        return None
    blocks: list[Block] = [
        Prose("Updates are counted over all phases of a run."),
        Table("At the end of training.", COLUMNS, [
            [name, *_last(rows)] for name, rows in runs.items()
        ]),
        Figures(training_figures(runs)),
    ]
    return Section("Training", "training", blocks)


def training_figures(
    runs: Mapping[str, Rows], names: Sequence[str] = tuple(CURVES)
) -> list[Figure]:
    """One plot for each figure that some run logged at least twice."""
    figures = []
    for figure in names:
        lines = {name: series(rows, figure, broken=figure == "loss") for name, rows in runs.items()}
        lines = {name: line for name, line in lines.items() if len(_finite(line)) > 1}
        if lines:
            label, caption = CURVES[figure]
            svg = curves(
                lines, x_label="updates", y_label=label, among=list(runs),
                log_y=figure == "loss" and _is_wide(lines.values()),
                marks=any(_stands_alone(line) for line in lines.values()),
            )
            figures.append(Figure(svg, label.capitalize(), caption))
    return figures


def series(
    rows: Rows, figure: str, *, broken: bool = False
) -> tuple[list[float], list[float]]:
    """Updates and values of one figure over all phases; ``broken``: with a NaN between phases, to
    interrupt the line."""
    steps: list[float] = []
    values: list[float] = []
    offset = last = 0
    phase = None
    for row in rows:
        if row.get("phase") != phase:
            offset, phase = offset + last, row.get("phase")
            if broken and steps:
                steps.append(float(offset))
                values.append(math.nan)
        last = row.get("step", 0)
        if isinstance(row.get(figure), int | float):
            steps.append(offset + last)
            values.append(float(row[figure]))
    return steps, values


def _finite(line: Series) -> list[float]:
    return [value for value in line[1] if math.isfinite(value)]


def _is_wide(lines: Iterable[Series]) -> bool:
    """Whether the values need a logarithmic axis and are all positive."""
    values = [value for line in lines for value in _finite(line)]
    return min(values) > 0 and max(values) > _WIDE * min(values)


def _stands_alone(line: Series) -> bool:
    """Whether some finite value has no finite neighbour that a line could join it to."""
    values = [math.nan, *line[1], math.nan]
    return any(
        math.isfinite(one) and not (math.isfinite(before) or math.isfinite(after))
        for before, one, after in zip(values, values[1:], values[2:], strict=False)
    )


def _last(rows: Rows) -> list[str]:
    def figure(name: str, pattern: str) -> str:
        _, values = series(rows, name)
        return pattern.format(values[-1]) if values else NOTHING

    phases = list(dict.fromkeys(row.get("phase") for row in rows))
    steps = dict.fromkeys(phases, 0)
    for row in rows:
        steps[row.get("phase")] = max(steps[row.get("phase")], row.get("step", 0))
    return [
        str(sum(steps.values())), str(len(phases)), figure("loss", "{:.4f}"),
        figure("accuracy", "{:.3f}"), figure("eval_accuracy", "{:.3f}"),
        figure("tokens_per_second", "{:,.0f}"), figure("peak_memory_mib", "{:,.0f}"),
    ]
