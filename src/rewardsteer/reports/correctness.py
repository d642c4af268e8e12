"""The section of a page on ``evaluate correctness``, from ``metrics.json`` alone."""

from collections.abc import Mapping
from typing import Any

from rewardsteer.reports.correctness_plots import (
    Metrics,
    called,
    filter_plot,
    percentile_plot,
    reliability_plot,
    roc_plot,
    swept,
    trade_off_plot,
)
from rewardsteer.reports.correctness_tables import FURTHER, TABLES
from rewardsteer.reports.plots import histograms
from rewardsteer.reports.preference import length_figure
from rewardsteer.reports.sections import (
    Block,
    Figure,
    Figures,
    Folded,
    Heading,
    Prose,
    Section,
    Table,
)


def correctness_section(runs: Mapping[str, Metrics]) -> Section | None:
    """Reward models on labelled solutions, benchmark by benchmark; None without any."""
    if not runs:
        return None
    benchmarks = list(dict.fromkeys(name for metrics in runs.values() for name in metrics))
    blocks: list[Block] = [Prose(
        "AUROC is the probability that a correct solution scores above an incorrect one. Intervals "
        "are 95 %, over questions. Thresholds were chosen on other questions."
    )]
    for benchmark in benchmarks:
        blocks.append(Heading(benchmark))
        blocks += benchmark_blocks({
            name: metrics[benchmark] for name, metrics in runs.items() if benchmark in metrics
        })
    return Section("Correctness", "correctness", blocks)


def benchmark_blocks(runs: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Figures and tables of one benchmark, all runs together."""
    shared = _shared_figures(runs)
    blocks: list[Block] = [Figures(shared)] if shared else []
    for _, caption, columns, rows in TABLES:
        if cells := rows(runs):
            blocks.append(Table(caption, ("run", *columns[1:]), cells, further=FURTHER))
    blocks += [
        Prose(f"{name}: {note}." if len(runs) > 1 else f"{note[:1].upper()}{note[1:]}.")
        for name, one in runs.items() for note in one.get("controls", {}).get("notes", [])
    ]
    own = [
        figure for name, one in runs.items()
        for figure in _own_figures(one, f" ({name})" if len(runs) > 1 else "")
    ]
    return [*blocks, Folded("Distributions, calibration and costs", [Figures(own)])] if own else (
        blocks
    )


def _shared_figures(runs: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Plots that show several runs."""
    figures = []
    if any("roc" in one for one in runs.values()):
        figures.append(Figure(
            roc_plot(runs), "ROC curves",
            "Share of correct and of incorrect solutions above each threshold. The dotted line "
            "is chance.",
        ))
    series = {
        called(run, signal): points for run, one in runs.items()
        for signal, points in one.get("auroc_by_percentile", {}).items()
    }
    if series:
        figures.append(Figure(
            percentile_plot(series), "AUROC on partial solutions",
            "AUROC by the share of the solution that was scored, with 95 % bands.",
        ))
    return figures


def _own_figures(figures: Mapping[str, Any], of: str) -> list[Figure]:
    """Plots of one run; older files lack some."""
    found = []
    for signal, made in figures.get("histogram", {}).items():
        found.append(Figure(
            histograms(made["edges"], made["counts"], x_label=signal),
            f"{signal.capitalize()} of complete solutions{of}", "Less overlap is better.",
        ))
    for signal, records in figures.get("calibration", {}).items():
        if records:
            found.append(Figure(
                reliability_plot(records), f"Calibration of the {signal}{of}",
                "P(correct), fitted on other questions, at quarters of a solution.",
            ))
    if swept(figures):
        found.append(Figure(
            filter_plot(figures), f"Accuracy and cost of votes{of}",
            "Filters at each threshold, majority votes of fewer samples, and early stopping.",
        ))
        found.append(Figure(
            trade_off_plot(swept(figures)), f"Filter trade-off{of}",
            "Tokens saved and accuracy of the vote at each threshold.",
        ))
    if any(one["bins"] for one in figures.get("reward_by_length", {}).values()):
        found.append(length_figure(figures["reward_by_length"]))
    return found

