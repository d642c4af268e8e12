"""Figures of ``evaluate correctness`` as tables and plots, from ``metrics.json`` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.reports.plots import curves
from rewardsteer.reports.tables import between

Metrics = Mapping[str, Mapping[str, Any]]

RANKING_COLUMNS = (
    "benchmark", "questions", "solutions", "right", "AUROC reward", "AUROC similarity",
    "within question", "similarity",
)
SAMPLE_COLUMNS = ("benchmark", "k", "majority", "weighted", "best of k", "pass@k")
FILTER_COLUMNS = (
    "benchmark", "signal", "threshold", "value", "filtered", "tokens saved", "less RM tokens",
    "vote before", "vote after", "gain (95 %)", "plain vote, equal tokens",
)
STOP_COLUMNS = ("benchmark", "rule", "samples", "tokens", "vote", "plain vote, equal tokens")
GAIN_COLUMNS = ("benchmark", "signal", "AUROC gain over the baseline", "95 % interval")

_CHOICES = {
    "published": "published (0)", "best": "best vote", "free": "no loss seen",
    "risk": "risk-controlled",
}


def ranking_rows(metrics: Metrics) -> list[list[str]]:
    """One row a benchmark under `RANKING_COLUMNS`."""
    return [
        [
            name, str(figures["questions"]), str(figures["solutions"]),
            f"{figures['accuracy']:.3f}", _area(figures, "auroc"),
            _area(figures, "auroc_similarity"), _plain(figures, "auroc_per_question"),
            _plain(figures, "auroc_per_question_similarity"),
        ]
        for name, figures in metrics.items()
    ]


def sample_rows(metrics: Metrics) -> list[list[str]]:
    """One row a benchmark and k = 1, 2, 4, … and the last under `SAMPLE_COLUMNS`."""
    return [
        [name, f"{row['k']:g}", *(f"{row[key]:.3f}" for key in (
            "majority", "weighted", "best_of", "pass"
        ))]
        for name, figures in metrics.items() for row in figures["by_samples"]
        if int(row["k"]).bit_count() == 1 or row is figures["by_samples"][-1]
    ]


def filter_rows(metrics: Metrics) -> list[list[str]]:
    """One row a benchmark, signal and chosen threshold under `FILTER_COLUMNS`."""
    rows = []
    for name, figures in metrics.items():
        for signal, record in figures.get("filtering", {}).items():
            for choice, label in _CHOICES.items():
                if choice in record:
                    rows.append([name, signal, label, *_filter_cells(record[choice])])
    return rows


def _filter_cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        f"{figures['threshold']:+.3f}", f"{figures['filtered']:.1%}",
        f"{figures['tokens_saved']:.1%}", f"{figures['tokens_saved_net']:.1%}",
        f"{figures['accuracy_before']:.3f}", f"{figures['accuracy']:.3f}",
        between(figures, "gain", "gain_low", "gain_high", "{:+.3f}"),
        f"{figures['plain_vote_at_equal_tokens']:.3f}",
    ]


def stop_rows(metrics: Metrics) -> list[list[str]]:
    """One row a benchmark and stopping rule under `STOP_COLUMNS`."""
    return [
        [
            name, rule["rule"], f"{rule['samples']:.1f}", f"{rule['tokens_per_question']:.0f}",
            f"{rule['accuracy']:.3f}", f"{rule['plain_vote_at_equal_tokens']:.3f}",
        ]
        for name, figures in metrics.items() for rule in figures.get("stopping", [])
    ]


def gain_rows(metrics: Metrics) -> list[list[str]]:
    """One row a benchmark and signal under `GAIN_COLUMNS`."""
    return [
        [name, signal, f"{gain['gain']:+.3f}", f"{gain['low']:+.3f} – {gain['high']:+.3f}"]
        for name, figures in metrics.items()
        for signal, gain in figures.get("against_baseline", {}).items()
        if isinstance(gain, Mapping)
    ]


def plots(metrics: Metrics, roc: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SVG by file name, benchmark by benchmark.

    Args:
        metrics: content of ``metrics.json``.
        roc: by benchmark, the ROC points of each signal.
    """
    made = {}
    for name, figures in metrics.items():
        if name in roc:
            made[f"{name}-roc"] = curves(
                {**roc[name], "chance": ([0.0, 1.0], [0.0, 1.0])},
                x_label="wrong solutions above the threshold",
                y_label="right solutions above the threshold",
            )
        if "auroc_by_percentile" in figures:
            made[f"{name}-percentiles"] = percentile_plot(figures["auroc_by_percentile"])
        if "filtering" in figures:
            made[f"{name}-filtering"] = filter_plot(figures)
        for signal, records in figures.get("calibration", {}).items():
            if records:
                made[f"{name}-reliability-{signal}"] = reliability_plot(records)
    return made


def percentile_plot(series: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """AUROC against the percentile of the solution, one line a signal, with 95 % bands."""
    return curves(
        {
            label: ([p["percentile"] for p in points], [p["auroc"] for p in points])
            for label, points in series.items()
        },
        x_label="share of the solution that was read", y_label="AUROC",
        bands={
            label: ([p["low"] for p in points], [p["high"] for p in points])
            for label, points in series.items()
        },
    )


def filter_plot(figures: Mapping[str, Any]) -> str:
    """Vote accuracy against tokens generated: filtering, plain votes and stopping rules.

    A filter's line ends at the threshold that saves most: beyond it ever more questions would lose
    all their solutions, and so keep them all.
    """
    lines = {}
    for signal, record in figures["filtering"].items():
        tokens = [point["tokens_per_question"] for point in record["sweep"]]
        shown = tokens.index(min(tokens)) + 1
        accuracy = [point["accuracy"] for point in record["sweep"][:shown]]
        lines[f"filtered by {signal}"] = (tokens[:shown], accuracy)
    for label, points in (
        ("plain vote of k", figures["plain_votes"]),
        ("ESC", [r for r in figures["stopping"] if r["rule"].startswith("ESC")]),
        ("adaptive", [r for r in figures["stopping"] if r["rule"].startswith("adaptive")]),
    ):
        lines[label] = (
            [point["tokens_per_question"] for point in points],
            [point["accuracy"] for point in points],
        )
    return curves(
        lines, x_label="tokens generated a question", y_label="accuracy of the vote", marks=True
    )


def reliability_plot(records: Sequence[Mapping[str, Any]]) -> str:
    """Share that came true against the probability, by how much had been read.

    Bins with less than a hundredth of all values are left out: their shares are noise.
    """
    lines: dict[str, tuple[list[float], list[float]]] = {"ideal": ([0.0, 1.0], [0.0, 1.0])}
    for record in records:
        total = sum(one["count"] for one in record["bins"])
        filled = [one for one in record["bins"] if one["count"] and one["count"] >= total / 100]
        lines[f"{record['percentile']:.0%} read"] = (
            [one["mean_probability"] for one in filled], [one["share"] for one in filled]
        )
    return curves(
        lines, x_label="probability of being right", y_label="share that was right", marks=True
    )


def _area(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "undefined" if "undefined" in figures else "–"
    return between(figures, name, f"{name}_low", f"{name}_high", "{:.3f}")


def _plain(figures: Mapping[str, Any], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else "–"
