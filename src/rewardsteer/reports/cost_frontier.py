"""Value against cost over several comparisons, from ``frontier.json`` of ``evaluate frontier``."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from rewardsteer.reports.frontiers import AXES
from rewardsteer.reports.plots import paths
from rewardsteer.reports.plotted import Point
from rewardsteer.reports.tables import NOTHING, between, markdown, number

Content = Mapping[str, Any]

STEP_COLUMNS = (
    "method", "best other at no higher cost", "difference (95 %)", "p", "beats controls",
)
EQUAL_COLUMNS = ("sweep", "metric", "budget", "gain (95 %)", "difference to the best (95 %)")


def columns(content: Content) -> list[str]:
    """Headings of `rows`."""
    values = [head for metric in content["metrics"]
              for head in (f"{metric} (95 %)", f"{metric} gain (95 %)")]
    return ["method", "runs", *values, *content["costs"], "on the frontier of"]


def rows(content: Content) -> list[list[str]]:
    """One row per method, by increasing first cost; controls are marked."""
    first = content["costs"][0] if content["costs"] else None
    order = sorted(
        content["methods"], key=lambda label: content["methods"][label].get(first, 0.0)
    )
    found = []
    for label in order:
        figures = content["methods"][label]
        cells = [_named(label, content), f"{figures['runs']}"]
        for metric in content["metrics"]:
            cells += [between(figures, metric),
                      between(figures, f"{metric}_gain", "{:+.3f}")]
        cells += [f"{figures[cost]:.4g}" for cost in content["costs"]]
        found.append([*cells, ", ".join(_frontiers_with(label, content)) or NOTHING])
    return found


def _frontiers_with(label: str, content: Content) -> list[str]:
    several = len(content["metrics"]) > 1
    return [
        f"{metric}/{cost}" if several else cost
        for metric, sets in content["pareto"].items() for cost, labels in sets.items()
        if label in labels
    ]


def step_rows(content: Content, metric: str, cost: str) -> list[list[str]]:
    """One row per method under `STEP_COLUMNS`."""
    return [
        [
            _named(one["method"], content), one.get("rival", NOTHING),
            between(one, "difference", "{:+.3f}"), number(one, "p", "{:.2g}"),
            {True: "yes", False: "no"}.get(one.get("beats_controls"), NOTHING),
        ]
        for one in content["steps"][metric][cost]
    ]


def equal_rows(content: Content) -> list[list[str]]:
    """One row per sweep and budget under `EQUAL_COLUMNS`."""
    return [
        [
            one["sweep"], one["metric"], f"{one['cost']} {one['budget']:g}",
            "reaches {:.3g} to {:.3g}".format(*one["reach"]) if "reach" in one
            else between(one, "gain", "{:+.3f}"),
            between(one, "behind", "{:+.3f}"),
        ]
        for one in content["equal"]
    ]


def plots(content: Content) -> dict[str, str]:
    """SVG by ``METRIC-COST``; a line joins the methods of a sweep, names in the Pareto set are
    bold."""
    methods = content["methods"]
    sweeps: dict[str, list[str]] = {}
    for label, figures in methods.items():
        sweeps.setdefault(figures["sweep"] or f"\0{label}", []).append(label)
    lines = [sorted(one, key=lambda label: methods[label]["weight"]) for one in sweeps.values()]
    return {
        f"{metric}-{cost}": paths(
            [[Point.of(label, methods[label], cost, metric) for label in line] for line in lines],
            x_label=_label(cost), y_label=metric, log_x=cost in ("seconds", "tokens", "passes"),
            frontier=True,
        )
        for metric in content["metrics"] for cost in content["costs"]
    }


def _label(cost: str) -> str:
    known = {name: axis.label for name, axis in AXES.items()}
    return known.get(cost, "forward passes of policy and reward model per response")


def table_csv(content: Content) -> str:
    """Every figure of every method, as CSV."""
    methods = content["methods"]
    heads = list(dict.fromkeys(name for figures in methods.values() for name in figures))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", *heads])
    for label, figures in methods.items():
        writer.writerow([label, *(figures.get(name, "") for name in heads)])
    return stream.getvalue()


def table_markdown(content: Content) -> str:
    """The command's tables and the Pareto sets, as Markdown."""
    parts = [
        f"{content['intervals']}. Baseline: {content['baseline']}. "
        f"{controls_line(content)}",
        markdown(columns(content), rows(content)),
    ]
    for metric, sets in content["pareto"].items():
        for cost, labels in sets.items():
            parts += [
                f"No other method beats these in both {metric} and {cost}: "
                f"{', '.join(labels)}.",
                markdown(STEP_COLUMNS, step_rows(content, metric, cost)),
            ]
    if content["equal"]:
        parts.append(markdown(EQUAL_COLUMNS, equal_rows(content)))
    return "\n\n".join(parts) + "\n"


def controls_line(content: Content) -> str:
    """A sentence that names the controls."""
    if content["controls"]:
        return f"Controls: {', '.join(content['controls'])}."
    return (
        "No controls are named, so no test shows whether a gain exceeds that of an untrained head, "
        "a low temperature or a random gate."
    )


def _named(label: str, content: Content) -> str:
    return f"{label} (control)" if label in content["controls"] else label

