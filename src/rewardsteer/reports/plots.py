"""Plots as SVG text: the same input gives the same bytes, and they follow the page's colours.

Drawn by matplotlib: SVG needs no script, prints sharply and takes its colours from the page, and a
page of twenty plots stays below half a megabyte, where an interactive library would bring several.
Axes and text are drawn in one marker colour that becomes ``currentColor``, so a plot is legible on
a light and on a dark page. Series colours are Okabe and Ito's, which colour-blind
readers can distinguish.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
_INK = "#123457"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH = 4.8  # inches; a page scales it to its column, and text must stay readable on a phone

_STYLE: Any = {
    "svg.hashsalt": "rewardsteer",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": _INK,
    # Names come from users: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4,
}


class Point(NamedTuple):
    """A named point with the half-width of its error bar on y."""

    label: str
    x: float
    y: float
    error: float = 0.0


class Spread(NamedTuple):
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float


Series = tuple[Sequence[float], Sequence[float]]


def bars(
    labels: Sequence[str], values: Sequence[float], errors: Sequence[float], *, x_label: str,
    reference: float | None = None, highlight: Sequence[str] = (),
) -> str:
    """Horizontal bars with error bars, first label on top; a dashed line marks ``reference``."""
    with mpl.rc_context(_STYLE):
        figure, axes = _rows(labels)
        colours = [COLOURS[4] if label in highlight else COLOURS[0] for label in labels]
        axes.barh(
            range(len(labels)), values, xerr=errors, color=colours, height=0.62,
            error_kw={"ecolor": _INK, "capsize": 2, "elinewidth": 1},
        )
        axes.set_xlabel(x_label)
        if reference is not None:
            axes.axvline(reference, color=_INK, linestyle="--", linewidth=1)
        return _svg(figure)


def intervals(
    labels: Sequence[str], series: Mapping[str, Mapping[str, Spread]], *, x_label: str,
    reference: float | None = None,
) -> str:
    """A dot and its interval for each label, first on top, and each of several series.

    Args:
        labels: of the rows.
        series: name → label → figure; a label that a series lacks is left out.
        x_label: of the axis.
        reference: marked by a dashed line.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _rows(labels, 0.34 + 0.12 * (len(series) - 1))
        for index, (name, spreads) in enumerate(series.items()):
            offset = 0.2 * (index - (len(series) - 1) / 2)
            rows = [(place, spreads[label]) for place, label in enumerate(labels)
                    if label in spreads]
            axes.errorbar(
                [one.value for _, one in rows], [place + offset for place, _ in rows],
                xerr=[[one.value - one.low for _, one in rows],
                      [one.high - one.value for _, one in rows]],
                fmt=_MARKERS[index % len(_MARKERS)], color=COLOURS[index % len(COLOURS)],
                markersize=6, capsize=0, elinewidth=2, label=_name(name),
            )
        axes.set_xlabel(x_label)
        if reference is not None:
            axes.axvline(reference, color=_INK, linestyle="--", linewidth=0.9)
        _legend(figure, len(series))
        return _svg(figure)


def _rows(labels: Sequence[str], height: float = 0.34) -> tuple[Any, Any]:
    """A figure with one row a label."""
    figure = Figure(figsize=(_WIDTH, 0.9 + height * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), [_name(label, 22) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.spines["left"].set_visible(False)
    return figure, axes


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
        figure, axes = _plane(x_label, y_label, 3.8)
        above = True
        for index, line in enumerate(lines):
            axes.errorbar(
                [point.x for point in line], [point.y for point in line],
                yerr=[point.error for point in line], linewidth=1.2,
                fmt=_MARKERS[index % len(_MARKERS)] + "-",
                color=COLOURS[index % len(COLOURS)], markersize=6, capsize=2, elinewidth=1,
            )
            for point in line:
                # Labels alternate above and below, so that neighbours do not cover each other.
                axes.annotate(
                    _name(point.label), (point.x, point.y), xytext=(6, 6 if above else -12),
                    textcoords="offset points", fontsize=9,
                )
                above = not above
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.18, y=0.15)
        return _svg(figure)


def curves(
    series: Mapping[str, Series], *, x_label: str, y_label: str,
    bands: Mapping[str, Series] | None = None, errors: Mapping[str, Sequence[float]] | None = None,
    marks: bool = False, diagonal: bool = False, among: Sequence[str] | None = None,
) -> str:
    """Lines by name, distinguished by colour and dash.

    Args:
        series: name → x and y.
        x_label, y_label: of the axes.
        bands: name → lower and upper ends, shaded behind the line.
        errors: name → half-widths of error bars.
        marks: also draw the points.
        diagonal: draw the line on which x and y are equal, on a square of [0, 1].
        among: all names on the page. A name then looks the same in each plot and is in the legend
            wherever the page has several names.
    """
    known = list(among or series)
    with mpl.rc_context(_STYLE):
        figure, axes = _plane(x_label, y_label, 4.2 if diagonal else 3.3)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.9, linestyle=":")
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_aspect("equal")
        for name, (xs, ys) in series.items():
            index = known.index(name)
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(
                xs, ys, label=_name(name), color=colour, linestyle=_DASHES[index % len(_DASHES)],
                linewidth=1.9, markersize=4.5,
                marker=_MARKERS[index % len(_MARKERS)] if marks else None,
            )
            if bands and name in bands:
                axes.fill_between(xs, *bands[name], color=colour, alpha=0.15, linewidth=0)
            if errors and name in errors:
                axes.errorbar(xs, ys, yerr=errors[name], fmt="none", ecolor=colour, elinewidth=1)
        _legend(figure, len(known))
        return _svg(figure)


def histograms(
    edges: Sequence[float], counts: Mapping[str, Sequence[float]], *, x_label: str
) -> str:
    """Outlines of several groups over shared bins, each as a share of its own group."""
    with mpl.rc_context(_STYLE):
        figure, axes = _plane(x_label, "share of the group", 2.9)
        for index, (name, values) in enumerate(counts.items()):
            total = sum(values) or 1
            axes.stairs(
                [value / total for value in values], edges, label=_name(name), fill=True,
                facecolor=(COLOURS[index % len(COLOURS)], 0.22), linewidth=1.6,
                edgecolor=COLOURS[index % len(COLOURS)],
                linestyle=_DASHES[index % len(_DASHES)],
            )
        axes.set_ylim(bottom=0)
        _legend(figure, len(counts))
        return _svg(figure)


def _plane(x_label: str, y_label: str, height: float) -> tuple[Any, Any]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _legend(figure: Any, count: int) -> None:
    """Names above the plot, where they cover nothing; one series needs none."""
    if count > 1:
        names = figure.axes[0].get_legend_handles_labels()[1]
        short = max(map(len, names)) <= 24
        figure.legend(loc="outside upper left", ncols=2 if short else 1, borderpad=0.1)


def _name(text: str, longest: int = 48) -> str:
    """A name as it can be drawn: no control characters, not too long, and never taken for a
    series that wants no name."""
    kept = "".join(letter for letter in text if letter.isprintable())
    kept = kept if len(kept) <= longest else kept[: longest - 1] + "…"
    return "\u200b" + kept if kept.startswith("_") else kept


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    # Not cut to what was drawn: all plots of a page have one width, so their text has one size.
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # The page scales the plot to its column; a fixed size would overflow a phone.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', text, count=1)
    # Metadata names outside addresses; a page that opens offline should not mention them.
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
