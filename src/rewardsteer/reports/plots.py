"""Plots as SVG text: the same input gives the same bytes, and they follow the page's colours.

Axes and text are drawn in one marker colour that becomes ``currentColor``, so a plot is legible on
a light and on a dark page. Series colours are Okabe and Ito's, told apart by colour-blind readers.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
_INK = "#123457"

_STYLE: Any = {
    "svg.hashsalt": "rewardsteer",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


class Point(NamedTuple):
    """A named point with the half-width of its error bar on y."""

    label: str
    x: float
    y: float
    error: float = 0.0


def bars(
    labels: Sequence[str], values: Sequence[float], errors: Sequence[float], *, x_label: str,
    reference: float | None = None, highlight: Sequence[str] = (),
) -> str:
    """Horizontal bars with error bars, first label on top; a dashed line marks ``reference``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(labels)))
        axes = figure.add_subplot()
        colours = [COLOURS[4] if label in highlight else COLOURS[0] for label in labels]
        axes.barh(
            range(len(labels)), values, xerr=errors, color=colours, height=0.62,
            error_kw={"ecolor": _INK, "capsize": 2, "elinewidth": 1},
        )
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
        if reference is not None:
            axes.axvline(reference, color=_INK, linestyle="--", linewidth=1)
        return _svg(figure)


def scatter(
    points: Sequence[Point], *, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """Named points with error bars on y."""
    return paths([[point] for point in points], x_label=x_label, y_label=y_label, log_x=log_x)


def paths(
    lines: Sequence[Sequence[Point]], *, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """Named points with error bars on y; those of one line share a colour and are joined."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4))
        axes = figure.add_subplot()
        above = True
        for index, line in enumerate(lines):
            axes.errorbar(
                [point.x for point in line], [point.y for point in line],
                yerr=[point.error for point in line], fmt="o-", linewidth=1.2,
                color=COLOURS[index % len(COLOURS)], markersize=6, capsize=2, elinewidth=1,
            )
            for point in line:
                # Labels alternate above and below, so that neighbours do not cover each other.
                axes.annotate(
                    point.label, (point.x, point.y), xytext=(6, 6 if above else -12),
                    textcoords="offset points", fontsize=9.5,
                )
                above = not above
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.18, y=0.15)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return _svg(figure)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_label: str, y_label: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    marks: bool = False,
) -> str:
    """Lines by name; also told apart by dash.

    Args:
        series: name → x and y.
        x_label, y_label: of the axes.
        bands: name → lower and upper ends, shaded behind the line.
        marks: also draw the points.
    """
    dashes = ("-", "--", "-.", ":")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.8))
        axes = figure.add_subplot()
        for index, (name, (xs, ys)) in enumerate(series.items()):
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(
                xs, ys, label=name, color=colour, linestyle=dashes[index % len(dashes)],
                linewidth=1.8, marker="o" if marks else None, markersize=3.5,
            )
            if bands and name in bands:
                axes.fill_between(xs, *bands[name], color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(fontsize=9.5)
        return _svg(figure)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # The page scales the plot to its column; a fixed size would overflow a phone.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', text, count=1)
    # Metadata names outside addresses; a page that opens offline should not mention them.
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
