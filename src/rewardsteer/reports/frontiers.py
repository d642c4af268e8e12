"""Reward against cost, from ``summary.json`` of ``evaluate generation`` alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rewardsteer.reports.plots import Point, paths
from rewardsteer.reports.tables import between

Methods = Mapping[str, Mapping[str, float]]


class Axis(NamedTuple):
    """A figure that reward is drawn against."""

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

FRONTIER_COLUMNS = (
    "method", "reward (95 %)", "NLL", "KL", "KL bound", "s per response", "RM calls per token",
    "equivalent tokens", "draws", "budget used", "distinct-2", "coherence",
)
FRONTIER_FURTHER = frozenset({"NLL", "KL bound", "draws", "budget used", "distinct-2", "coherence"})
WIN_COLUMNS = (
    "method", "win rate (95 %)", "at equal lengths (95 %)", "wins", "ties", "losses", "no verdict",
    "consistent in both orders",
)


def frontier_rows(methods: Methods) -> list[list[str]]:
    """One row per method under `FRONTIER_COLUMNS`; a figure that was not measured is a dash."""
    patterns = {
        "surprise": "{:.3f}", "kl": "{:.3f}", "kl_bound": "{:.2f}",
        "seconds_per_response": "{:.3g}", "rm_calls_per_token": "{:.2f}",
        "equivalent_tokens": "{:.1f}", "draws": "{:.0f}",
        "budget_used": "{:.4g}", "distinct_2": "{:.3f}", "coherence": "{:.3f}",
    }
    return [
        [
            name, between(figures, "reward", "reward_low", "reward_high", "{:+.3f}"),
            *(
                pattern.format(figures[figure]) if figure in figures else "–"
                for figure, pattern in patterns.items()
            ),
        ]
        for name, figures in methods.items()
    ]


def win_rows(methods: Methods) -> list[list[str]]:
    """One row per method that a language model compared with the baseline, under `WIN_COLUMNS`."""
    return [
        [
            name,
            *(
                between(figures, rate, f"{rate}_low", f"{rate}_high", "{:.3f}")
                if rate in figures else "–" for rate in ("win_rate", "lc_win_rate")
            ),
            *(f"{figures[count]:g}" for count in ("wins", "ties", "losses", "no_verdict")),
            f"{figures['consistent']:.3f}" if "consistent" in figures else "–",
        ]
        for name, figures in methods.items() if "no_verdict" in figures
    ]


def frontiers(summary: Mapping[str, Any]) -> dict[str, str]:
    """SVG by name of the axis, for the axes that were measured.

    Args:
        summary: content of ``summary.json``. The entries of a sweep are joined by a line.
    """
    methods, sweeps = summary["methods"], summary.get("sweeps", {})
    swept = {label for labels in sweeps.values() for label in labels}
    lines = [*sweeps.values(), *([label] for label in methods if label not in swept)]
    return {
        name: paths(
            [[_point(label, methods[label], axis) for label in line] for line in lines],
            x_label=axis.label, y_label="mean reward", log_x=axis.log, frontier=True,
        )
        for name, axis in AXES.items()
        if all(axis.figure in figures for figures in methods.values())
    }


def _point(label: str, figures: Mapping[str, float], axis: Axis) -> Point:
    reward = figures["reward"]
    return Point(
        label, figures[axis.figure], reward, figures.get("reward_low"), figures.get("reward_high")
    )
