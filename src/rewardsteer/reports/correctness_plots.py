"""Plots of ``evaluate correctness``, from the content of ``metrics.json`` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.reports.plots import curves

Metrics = Mapping[str, Mapping[str, Any]]


def plots(metrics: Metrics) -> dict[str, str]:
    """SVG by file name, benchmark by benchmark, from the content of ``metrics.json``."""
    made = {}
    for name, figures in metrics.items():
        one = {"": figures}
        if "roc" in figures:
            made[f"{name}-roc"] = roc_plot(one)
        if "auroc_by_percentile" in figures:
            made[f"{name}-percentiles"] = percentile_plot(figures["auroc_by_percentile"])
        if swept(figures):
            made[f"{name}-filtering"] = filter_plot(figures)
        for signal, records in figures.get("calibration", {}).items():
            if records:
                made[f"{name}-reliability-{signal}"] = reliability_plot(records)
    return made


def swept(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Filters that were measured at many thresholds, by signal; not the published one alone."""
    filtering = figures.get("filtering", {})
    return {signal: record for signal, record in filtering.items() if "sweep" in record}


def called(run: str, signal: str) -> str:
    """A line's name: the signal, after the name of the run if there are several."""
    return f"{run}, {signal}" if run else signal


def roc_plot(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """ROC curves of each signal of each run, with its area where it is known."""
    lines = {}
    for run, figures in runs.items():
        for signal, points in figures.get("roc", {}).items():
            area = figures.get("auroc" if signal == "reward" else f"auroc_{signal}")
            name = called(run, signal) + ("" if area is None else f" ({area:.3f})")
            lines[name] = (points["wrong"], points["right"])
    return curves(
        lines, diagonal=True, x_label="incorrect solutions above the threshold",
        y_label="correct solutions above the threshold",
    )


def trade_off_plot(filtering: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy of the vote against tokens saved, by signal, with that of the unfiltered vote."""
    lines = {}
    for signal, record in filtering.items():
        sweep = _falling(record["sweep"])
        lines[f"filtered by {signal}"] = (
            [point["tokens_saved"] for point in sweep], [point["accuracy"] for point in sweep]
        )
    reach = max(x for saved, _ in lines.values() for x in saved)
    before = next(iter(filtering.values()))["sweep"][0]["accuracy_before"]
    lines["unfiltered vote"] = ([0.0, reach], [before, before])
    return curves(
        lines, marks=True, x_label="share of tokens saved", y_label="accuracy of the vote"
    )


def _falling(sweep: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """Thresholds up to the one that saves most. Above it savings shrink: more and more questions
    would lose all their solutions, which are kept then."""
    tokens = [point["tokens_per_question"] for point in sweep]
    return sweep[: tokens.index(min(tokens)) + 1]


def percentile_plot(series: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """AUROC against the percentile of the solution, one line per signal, with 95 % bands."""
    return curves(
        {
            label: ([p["percentile"] for p in points], [p["auroc"] for p in points])
            for label, points in series.items()
        },
        x_label="share of the solution", y_label="AUROC",
        bands={
            label: ([p["low"] for p in points], [p["high"] for p in points])
            for label, points in series.items() if all("low" in p for p in points)
        },
    )


def filter_plot(figures: Mapping[str, Any]) -> str:
    """Accuracy against tokens per question: generated ones, and those that the reward model
    processes at their relative cost."""
    lines = {}
    for signal, record in swept(figures).items():
        sweep = _falling(record["sweep"])
        lines[f"filtered by {signal}"] = (
            [point["net_tokens_per_question"] for point in sweep],
            [point["accuracy"] for point in sweep],
        )
    votes, generated = figures["plain_votes"], "tokens_per_question"
    for way, label, cost in (
        ("majority", "majority vote of k", generated),
        ("weighted", "weighted vote of k", f"net_{generated}"),
        ("best_of", "best of k", f"net_{generated}"),
    ):
        if way in votes[0] and cost in votes[0]:
            lines[label] = ([point[cost] for point in votes], [point[way] for point in votes])
    for label, points in (
        ("ESC", [r for r in figures["stopping"] if r["rule"].startswith("ESC")]),
        ("adaptive", [r for r in figures["stopping"] if r["rule"].startswith("adaptive")]),
    ):
        lines[label] = (
            [point["tokens_per_question"] for point in points],
            [point["accuracy"] for point in points],
        )
    return curves(
        lines, x_label="tokens per question, the reward model's included",
        y_label="accuracy", marks=True
    )


def reliability_plot(records: Sequence[Mapping[str, Any]]) -> str:
    """Observed share of correct solutions against P(correct), by percentile of the solution.

    Bins with less than a hundredth of all values are left out as noise.
    """
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        total = sum(one["count"] for one in record["bins"])
        filled = [one for one in record["bins"] if one["count"] and one["count"] >= total / 100]
        lines[f"{record['percentile']:.0%} of tokens"] = (
            [one["mean_probability"] for one in filled], [one["share"] for one in filled]
        )
    return curves(
        lines, diagonal=True, marks=True, x_label="P(correct)",
        y_label="share correct",
    )
