"""Figures of ``evaluate preference``: accuracy, histograms, calibration and length."""

from collections.abc import Mapping
from typing import Any

from rewardsteer.evaluation.statistics import proportion
from rewardsteer.reports.plots import curves, histograms, intervals
from rewardsteer.reports.plotted import Spread
from rewardsteer.reports.sections import Block, Figure, Figures, Prose, Section, Table, run_by_run
from rewardsteer.reports.tables import (
    NOTHING,
    PREFERENCE_COLUMNS,
    PREFERENCE_CONTROL_COLUMNS,
    number,
    preference_control_rows,
    preference_groups,
    preference_rows,
)

Metrics = Mapping[str, Any]
_FEW = 8  # bins with fewer pairs are left out as noise


def preference_section(runs: Mapping[str, Metrics]) -> Section | None:
    """All reward models on held-out comparisons; None without any."""
    if not runs:
        return None
    return Section("Preferences", "preference", [
        Prose(
            "Accuracy: share of pairs whose chosen response gets the higher reward, with 95 % "
            "Wilson intervals. A tie counts one half; 0.5 is chance."
        ),
        Figures([accuracy_figure(runs), calibration_figure(runs)]),
        Table(
            "Calibration and dependence on length. Expected calibration error, "
            "Brier score and negative log-likelihood of P(chosen > rejected) = sigmoid of the "
            "difference of rewards; accuracy where the chosen response is the longer or the "
            "shorter one; rank correlation of the differences of reward and length.",
            ("run", "ECE", "Brier", "NLL", "chosen longer", "chosen shorter", "rank correlation"),
            [[name, *_calibration_cells(metrics)] for name, metrics in runs.items()],
        ),
        *run_by_run(runs, _of_one),
    ])


def _of_one(metrics: Metrics) -> list[Block]:
    figures = _own_figures(metrics)
    blocks: list[Block] = [Figures(figures)] if figures else []
    blocks.append(Table("By subset.", PREFERENCE_COLUMNS, preference_rows(metrics)))
    if controls := preference_control_rows(metrics):
        blocks.append(Table(
            "Accuracy of controls that do not use the content of the responses: the longer one, "
            "and the source that is preferred more often on other prompts. Accuracy of the reward "
            "on pairs of one source.",
            PREFERENCE_CONTROL_COLUMNS, controls,
        ))
        blocks += [Prose(f"{note[:1].upper()}{note[1:]}.")
                   for note in metrics["controls"]["notes"]]
    return blocks


def accuracy_figure(runs: Mapping[str, Metrics]) -> Figure:
    """Accuracy by subset."""
    labels = list(dict.fromkeys(
        label for metrics in runs.values() for label in preference_groups(metrics)
    ))
    series = {
        name: {
            label: Spread.of(one, "accuracy")
            for label, one in preference_groups(metrics).items()
        }
        for name, metrics in runs.items()
    }
    return Figure(
        intervals(labels, series, x_label="accuracy", reference=0.5),
        "Accuracy by subset", "The dashed line is chance; the ends are 95 % intervals.",
    )


def calibration_figure(runs: Mapping[str, Metrics]) -> Figure:
    """P(chosen > rejected) against the observed share."""
    lines, ends = {}, {}
    for name, metrics in runs.items():
        bins = [one for one in metrics["calibration"]["bins"] if one["count"] >= _FEW]
        shares = [
            proportion(one["share"] * one["count"], int(one["count"])) for one in bins
        ]
        lines[name] = ([one["mean_probability"] for one in bins], [one["share"] for one in bins])
        ends[name] = ([share.low for share in shares], [share.high for share in shares])
    return Figure(
        curves(
            lines, ends=ends, marks=True, diagonal=True,
            x_label="P(first response preferred)", y_label="share preferred",
        ),
        "Calibration",
        "Observed share of preferred responses against the probability that the model gives them, "
        "sigmoid of the difference of rewards. The dotted line is perfect calibration.",
    )


def _calibration_cells(metrics: Metrics) -> list[str]:
    calibration, bias = metrics["calibration"], metrics["length_bias"]
    return [
        *(number(calibration, name) for name in (
            "expected_calibration_error", "brier", "negative_log_likelihood"
        )),
        *(_accuracy(bias.get(side, {})) for side in ("longer", "shorter")),
        number(bias, "spearman", "{:+.3f}"),
    ]


def _accuracy(figures: Mapping[str, float]) -> str:
    if "accuracy" not in figures:
        return NOTHING
    return f"{figures['accuracy']:.3f} of {figures['count']:g}"


def _own_figures(metrics: Metrics) -> list[Figure]:
    """Histogram and length plot; older files have neither."""
    figures = []
    if "histogram" in metrics:
        figures.append(Figure(
            histograms(
                metrics["histogram"]["edges"], metrics["histogram"]["counts"], x_label="reward"
            ),
            "Rewards", "Rewards of chosen and rejected responses. Accuracy depends on the "
            "difference within a pair.",
        ))
    if "reward_by_length" in metrics:
        figures.append(length_figure(metrics["reward_by_length"]))
    return figures


def length_figure(groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Mean reward by length of each group, with their rank correlation."""
    lines = {
        name: ([one["tokens"] for one in group["bins"]], [one["reward"] for one in group["bins"]])
        for name, group in groups.items()
    }
    ends = {
        name: (
            [one["reward"] - one.get("error", 0.0) for one in group["bins"]],
            [one["reward"] + one.get("error", 0.0) for one in group["bins"]],
        )
        for name, group in groups.items()
    }
    ranks = [
        f"{name} {group['spearman']:+.2f}" for name, group in groups.items() if "spearman" in group
    ]
    rank = f" Rank correlation: {', '.join(ranks)}." if ranks else ""
    return Figure(
        curves(
            lines, ends=ends, marks=True, x_label="tokens of the response",
            y_label="mean reward",
        ),
        "Reward against length", "Bins of about equally many responses, with 95 % intervals. A "
        f"line that rises although responses do not improve shows a length bias.{rank}",
    )
