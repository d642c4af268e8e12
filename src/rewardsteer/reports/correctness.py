"""Figures of ``evaluate correctness``, from ``metrics.json`` alone: tables, plots, a section."""

from collections.abc import Callable, Mapping
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
from rewardsteer.reports.tables import between

RANKING_COLUMNS = (
    "benchmark", "questions", "solutions", "accuracy", "AUROC reward", "AUROC similarity",
    "within question", "similarity",
)
SAMPLE_COLUMNS = (
    "benchmark", "k", "questions", "majority (95 %)", "weighted (95 %)", "best of k (95 %)",
    "pass@k",
)
FILTER_COLUMNS = (
    "benchmark", "signal", "threshold", "value", "filtered", "tokens saved", "net of RM tokens",
    "vote before", "vote after", "gain (95 %)", "weighted vote, all samples",
    "best of all samples", "majority, equal net tokens", "weighted, equal net tokens",
    "best of k, equal net tokens",
)
TEST_VOTE_COLUMNS = (
    "benchmark", "test questions", "majority (95 %)", "weighted (95 %)", "temperature",
    "weighted at that temperature (95 %)", "best of all (95 %)",
)
STOP_COLUMNS = ("benchmark", "rule", "samples", "tokens", "vote", "majority vote, equal tokens")
GAIN_COLUMNS = ("benchmark", "signal", "AUROC gain over the baseline", "95 % interval")
# Columns of these tables that a reader of a page asks for.
FURTHER = frozenset({
    "value", "filtered", "tokens saved", "vote before", "questions", "similarity",
    "weighted vote, all samples", "majority, equal net tokens",
})

_CHOICES = {
    "published": "published (0), all questions", "best": "best vote",
    "free": "no loss on validation", "risk": "risk-controlled",
}


def ranking_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark under `RANKING_COLUMNS`."""
    return [
        [
            name, str(figures["questions"]), str(figures["solutions"]),
            f"{figures['accuracy']:.3f}", _area(figures, "auroc"),
            _area(figures, "auroc_similarity"), _plain(figures, "auroc_per_question"),
            _plain(figures, "auroc_per_question_similarity"),
        ]
        for name, figures in metrics.items()
    ]


CONTROL_COLUMNS = (
    "benchmark", "random", "length alone", "source alone", "reward within source",
    "reward within question", "rank correlation with length", "with source",
    "longest of all", "best of all by source",
)


def control_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark that has them, under `CONTROL_COLUMNS`."""
    rows = []
    for name, figures in metrics.items():
        if "controls" not in figures:
            continue
        found = figures["controls"]
        alone = [
            between(found[one], "auroc", "low", "high", "{:.3f}") if one in found else "–"
            for one in ("random", "length", "source")
        ]
        within = [_interval(found, f"within_{one}") for one in ("source", "question")]
        shared = [_plain(found["rank_correlation"], one) for one in ("length", "source")]
        best = [
            between(found[one], "best_of", "best_of_low", "best_of_high", "{:.3f}")
            if "best_of" in found.get(one, {}) else "–" for one in ("length", "source")
        ]
        rows.append([name, *alone, *within, *shared, *best])
    return rows


def sample_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark and k = 1, 2, 4, … and the last under `SAMPLE_COLUMNS`."""
    return [
        [name, f"{row['k']:g}", f"{row['questions']:g}",
         *(_interval(row, key) for key in ("majority", "weighted", "best_of")),
         f"{row['pass']:.3f}"]
        for name, figures in metrics.items() for row in figures["by_samples"]
        if int(row["k"]).bit_count() == 1 or row is figures["by_samples"][-1]
    ]


def filter_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark, signal and chosen threshold under `FILTER_COLUMNS`."""
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
        *(_plain(figures, f"{way}_accuracy") for way in ("weighted", "best_of")),
        *(_plain(figures, f"{way}_at_equal_net_tokens") for way in (
            "majority", "weighted", "best_of"
        )),
    ]


def test_vote_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark with votes on test questions under `TEST_VOTE_COLUMNS`."""
    return [
        [
            name, f"{found['questions']:g}", _interval(found, "majority"),
            _interval(found, "weighted"),
            f"{figures['vote_temperature']:.3g}" if "vote_temperature" in figures else "–",
            _interval(found, "tempered"), _interval(found, "best_of"),
        ]
        for name, figures in metrics.items() if (found := figures.get("test_votes"))
    ]


def stop_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark and stopping rule under `STOP_COLUMNS`."""
    return [
        [
            name, rule["rule"], f"{rule['samples']:.1f}",
            f"{rule['tokens_per_question']:.0f}" if "tokens_per_question" in rule else "–",
            f"{rule['accuracy']:.3f}", _plain(rule, "plain_vote_at_equal_tokens"),
        ]
        for name, figures in metrics.items() for rule in figures.get("stopping", [])
    ]


def gain_rows(metrics: Metrics) -> list[list[str]]:
    """One row per benchmark and signal under `GAIN_COLUMNS`."""
    return [
        [
            name, signal, f"{gain['gain']:+.3f}",
            f"{gain['low']:+.3f} – {gain['high']:+.3f}" if "low" in gain else "–",
        ]
        for name, figures in metrics.items()
        for signal, gain in figures.get("against_baseline", {}).items()
        if isinstance(gain, Mapping)
    ]


# Title on a terminal, caption on a page, columns and rows.
TABLES: tuple[tuple[str, str, tuple[str, ...], Callable[[Metrics], list[list[str]]]], ...] = (
    ("ranking", "Ranking of correct above incorrect solutions.", RANKING_COLUMNS, ranking_rows),
    ("controls: AUROC without reading a solution",
     "AUROC of scores that read no solution, and of the reward within one source or question. The "
     "source's score is its share of correct solutions on other questions.",
     CONTROL_COLUMNS, control_rows),
    ("against the baseline", "Gain in AUROC over the baseline's reward, paired by solution.",
     GAIN_COLUMNS, gain_rows),
    ("votes among k solutions", "Votes and choices among k solutions of a question.",
     SAMPLE_COLUMNS, sample_rows),
    ("all samples of the test questions",
     "All samples of the test questions. The temperature T of the vote's weights exp(reward / T) "
     "was fitted on the other questions.", TEST_VOTE_COLUMNS, test_vote_rows),
    ("filtering, test questions",
     "Majority vote after early rejection of solutions whose value falls below a threshold. Net "
     "tokens count what the reward model processes; – is outside of k = 1 to all samples.",
     FILTER_COLUMNS, filter_rows),
    ("stopping early", "Rules that stop sampling early.", STOP_COLUMNS, stop_rows),
)


def correctness_section(runs: Mapping[str, Metrics]) -> Section | None:
    """Reward models on labelled solutions, benchmark by benchmark; None without any.

    Args:
        runs: content of ``metrics.json`` by run.
    """
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


def _area(figures: Mapping[str, Any], name: str) -> str:
    absent = name not in figures and "undefined" in figures
    return "undefined" if absent else _interval(figures, name)


def _interval(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "–"
    return between(figures, name, f"{name}_low", f"{name}_high", "{:.3f}")


def _plain(figures: Mapping[str, Any], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else "–"
