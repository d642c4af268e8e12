"""Reward against cost, from ``summary.json`` of ``evaluate generation`` alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rewardsteer.reports.plots import paths
from rewardsteer.reports.plotted import Point
from rewardsteer.reports.tables import Cells, between, cell_rows, number

Methods = Mapping[str, Mapping[str, float]]


class Axis(NamedTuple):
    """A cost or distance that reward is plotted against."""

    figure: str
    label: str
    log: bool = False


AXES = {
    "surprise": Axis("surprise", "negative log-likelihood, nats per token (no KL divergence)"),
    "kl": Axis("kl", "KL divergence from the policy, nats per response (best of n: at most)"),
    "seconds": Axis("seconds_per_response", "seconds per response", log=True),
    "calls": Axis("rm_calls_per_token", "reward model calls per token of the response"),
    "tokens": Axis("equivalent_tokens", "policy-equivalent tokens per response", log=True),
}

_FRONTIER: Cells = {
    "reward (95 %)": lambda one: between(one, "reward", "{:+.3f}"),
    "NLL": lambda one: number(one, "surprise"),
    "KL": lambda one: number(one, "kl"),
    "KL bound": lambda one: number(one, "kl_bound", "{:.2f}"),
    "s per response": lambda one: number(one, "seconds_per_response", "{:.3g}"),
    "RM calls per token": lambda one: number(one, "rm_calls_per_token", "{:.2f}"),
    "equivalent tokens": lambda one: number(one, "equivalent_tokens", "{:.1f}"),
    "draws": lambda one: number(one, "draws", "{:.0f}"),
    "budget used": lambda one: number(one, "budget_used", "{:.4g}"),
    "distinct-2": lambda one: number(one, "distinct_2"),
    "coherence": lambda one: number(one, "coherence"),
}
FRONTIER_COLUMNS = ("method", *_FRONTIER)
FRONTIER_FURTHER = frozenset({"NLL", "KL bound", "draws", "budget used", "distinct-2", "coherence"})
_WINS: Cells = {
    "win rate (95 %)": lambda one: between(one, "win_rate"),
    "at equal lengths (95 %)": lambda one: between(one, "lc_win_rate"),
    "wins": lambda one: number(one, "wins", "{:g}"),
    "ties": lambda one: number(one, "ties", "{:g}"),
    "losses": lambda one: number(one, "losses", "{:g}"),
    "no verdict": lambda one: number(one, "no_verdict", "{:g}"),
    "consistent in both orders": lambda one: number(one, "consistent"),
}
WIN_COLUMNS = ("method", *_WINS)


def frontier_rows(methods: Methods) -> list[list[str]]:
    """One row per method under `FRONTIER_COLUMNS`; a figure that was not measured is a dash."""
    return cell_rows(methods, _FRONTIER)


def win_rows(methods: Methods) -> list[list[str]]:
    """One row per method with a win rate over the baseline, under `WIN_COLUMNS`."""
    return cell_rows({name: one for name, one in methods.items() if "no_verdict" in one}, _WINS)


def frontiers(summary: Mapping[str, Any]) -> dict[str, str]:
    """SVG by name of the axis, for the axes that were measured; a line joins a sweep's entries."""
    methods, sweeps = summary["methods"], summary.get("sweeps", {})
    swept = {label for labels in sweeps.values() for label in labels}
    lines = [*sweeps.values(), *([label] for label in methods if label not in swept)]
    return {
        name: paths(
            [
                [Point.of(label, methods[label], axis.figure, "reward") for label in line]
                for line in lines
            ],
            x_label=axis.label, y_label="mean reward", log_x=axis.log, frontier=True,
        )
        for name, axis in AXES.items()
        if all(axis.figure in figures for figures in methods.values())
    }
