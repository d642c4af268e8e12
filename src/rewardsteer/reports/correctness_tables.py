"""Tables of ``evaluate correctness``, from ``metrics.json`` alone, for a page and the terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rewardsteer.reports.correctness_plots import Metrics
from rewardsteer.reports.tables import LOW_HIGH, NOTHING, Cells, Figures, between, number

# Columns that a page hides until its reader shows them.
FURTHER = frozenset({
    "value", "filtered", "tokens saved", "vote before", "questions", "similarity",
    "weighted vote, all samples", "majority, equal net tokens",
})
_CHOICES = {
    "published": "published (0), all questions", "best": "best vote",
    "free": "no loss on validation", "risk": "risk-controlled",
}
# Yields each row's names and its figures.
_Rows = Iterator[tuple[Sequence[str], Figures]]


class CorrectnessTable(NamedTuple):
    """A table of all benchmarks.

    Attributes:
        title: on a terminal.
        caption: on a page.
        columns: headings.
        rows: cells by the content of ``metrics.json``; none where nothing was measured.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Callable[[Metrics], list[list[str]]]


def _table(
    title: str, caption: str, found: Callable[[Metrics], _Rows], cells: Cells, *,
    names: Sequence[str] = (),
) -> CorrectnessTable:
    """A table with a column for the benchmark, for further names of a row, and for each cell."""
    return CorrectnessTable(
        title, caption, ("benchmark", *names, *cells), lambda metrics: [
            [*labels, *(cell(figures) for cell in cells.values())]
            for labels, figures in found(metrics)
        ],
    )


def _benchmarks(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        yield [name], figures


def _controls(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        if "controls" in figures:
            yield [name], figures["controls"]


def _gains(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        for signal, gain in figures.get("against_baseline", {}).items():
            if isinstance(gain, Mapping):
                yield [name, signal], gain


def _samples(metrics: Metrics) -> _Rows:
    """Figures with k samples per benchmark, for k = 1, 2, 4, … and the largest k."""
    for name, figures in metrics.items():
        for row in figures["by_samples"]:
            if int(row["k"]).bit_count() == 1 or row is figures["by_samples"][-1]:
                yield [name], row


def _test_votes(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        if found := figures.get("test_votes"):
            yield [name], figures | found


def _filters(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        for signal, record in figures.get("filtering", {}).items():
            for choice, label in _CHOICES.items():
                if choice in record:
                    yield [name, signal, label], record[choice]


def _stopping(metrics: Metrics) -> _Rows:
    for name, figures in metrics.items():
        for rule in figures.get("stopping", []):
            yield [name, rule["rule"]], rule


def _area(figures: Figures, name: str) -> str:
    absent = name not in figures and "undefined" in figures
    return "undefined" if absent else between(figures, name)


def _alone(control: str) -> Callable[[Figures], str]:
    """A function that formats the AUROC of a control."""
    return lambda one: between(one.get(control, {}), "auroc", ends=LOW_HIGH)


def _ends(figures: Figures) -> str:
    return f"{figures['low']:+.3f} – {figures['high']:+.3f}" if "low" in figures else NOTHING


TABLES = (
    _table("ranking", "Ranking of correct above incorrect solutions.", _benchmarks, {
        "questions": lambda one: str(one["questions"]),
        "solutions": lambda one: str(one["solutions"]),
        "accuracy": lambda one: number(one, "accuracy"),
        "AUROC reward": lambda one: _area(one, "auroc"),
        "AUROC similarity": lambda one: _area(one, "auroc_similarity"),
        "within question": lambda one: number(one, "auroc_per_question"),
        "similarity": lambda one: number(one, "auroc_per_question_similarity"),
    }),
    _table(
        "controls: AUROC without the solution",
        "AUROC of scores that do not use the content of a solution, and of the reward among the "
        "solutions of one source or question. The score of a source is its share of correct "
        "solutions on other questions.", _controls, {
            "random": _alone("random"),
            "length alone": _alone("length"),
            "source alone": _alone("source"),
            "reward within source": lambda one: between(one, "within_source"),
            "reward within question": lambda one: between(one, "within_question"),
            "rank correlation with length": lambda one: number(one["rank_correlation"], "length"),
            "with source": lambda one: number(one["rank_correlation"], "source"),
            "longest of all": lambda one: between(one["length"], "best_of"),
            "best of all by source": lambda one: between(one.get("source", {}), "best_of"),
        },
    ),
    _table("against the baseline", "Gain in AUROC over the baseline's reward, paired by solution.",
           _gains, {
               "AUROC gain over the baseline": lambda one: number(one, "gain", "{:+.3f}"),
               "95 % interval": _ends,
           }, names=("signal",)),
    _table("votes among k solutions", "Votes and choices among k solutions of a question.",
           _samples, {
               "k": lambda one: number(one, "k", "{:g}"),
               "questions": lambda one: number(one, "questions", "{:g}"),
               "majority (95 %)": lambda one: between(one, "majority"),
               "weighted (95 %)": lambda one: between(one, "weighted"),
               "best of k (95 %)": lambda one: between(one, "best_of"),
               "pass@k": lambda one: number(one, "pass"),
           }),
    _table(
        "all samples of the test questions",
        "All samples of the test questions. The temperature T of the vote's weights exp(reward / "
        "T) was fitted on the other questions.", _test_votes, {
            "test questions": lambda one: number(one, "questions", "{:g}"),
            "majority (95 %)": lambda one: between(one, "majority"),
            "weighted (95 %)": lambda one: between(one, "weighted"),
            "temperature": lambda one: number(one, "vote_temperature", "{:.3g}"),
            "weighted at that temperature (95 %)": lambda one: between(one, "tempered"),
            "best of all (95 %)": lambda one: between(one, "best_of"),
        },
    ),
    _table(
        "filtering, test questions",
        "Majority vote after early rejection of solutions whose value falls below a threshold. Net "
        "tokens include those that the reward model processes. –: the budget is below the cost of "
        "one sample or above that of all.",
        _filters, {
            "value": lambda one: number(one, "threshold", "{:+.3f}"),
            "filtered": lambda one: number(one, "filtered", "{:.1%}"),
            "tokens saved": lambda one: number(one, "tokens_saved", "{:.1%}"),
            "net of RM tokens": lambda one: number(one, "tokens_saved_net", "{:.1%}"),
            "vote before": lambda one: number(one, "accuracy_before"),
            "vote after": lambda one: number(one, "accuracy"),
            "gain (95 %)": lambda one: between(one, "gain", "{:+.3f}"),
            "weighted vote, all samples": lambda one: number(one, "weighted_accuracy"),
            "best of all samples": lambda one: number(one, "best_of_accuracy"),
            "majority, equal net tokens": lambda one: number(one, "majority_at_equal_net_tokens"),
            "weighted, equal net tokens": lambda one: number(one, "weighted_at_equal_net_tokens"),
            "best of k, equal net tokens": lambda one: number(one, "best_of_at_equal_net_tokens"),
        }, names=("signal", "threshold"),
    ),
    _table("stopping early", "Rules that stop sampling early.", _stopping, {
        "samples": lambda one: number(one, "samples", "{:.1f}"),
        "tokens": lambda one: number(one, "tokens_per_question", "{:.0f}"),
        "vote": lambda one: number(one, "accuracy"),
        "majority vote, equal tokens": lambda one: number(one, "plain_vote_at_equal_tokens"),
    }, names=("rule",)),
)
