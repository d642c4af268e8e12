"""Plots as SVG text: the same input gives the same bytes, and they follow the page's colours.

matplotlib draws them. SVG needs no script, prints sharply and takes its colours from the page. A
page of twenty plots is smaller than a megabyte; an interactive library alone has several. Axes and
text are drawn in one colour that is replaced by ``currentColor``, so a plot is legible on a light
and on a dark page. Series colours are Okabe and Ito's, which colour-blind readers can distinguish.
Each point has a tooltip with its name and values.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl

from rewardsteer.evaluation.pareto import pareto
from rewardsteer.reports.drawing import (
    INK,
    STYLE,
    Tip,
    legend,
    log_axis,
    mark,
    plane,
    rows_of,
    said,
    shown_name,
    svg,
    thinned,
)
from rewardsteer.reports.label_places import Named, place_names
from rewardsteer.reports.plotted import Point, Spread, bar_lengths, described

# Distance of the ticks of single runs below the interval, in rows.
_BELOW = 0.3


Series = tuple[Sequence[float], Sequence[float]]


def intervals(
    labels: Sequence[str], series: Mapping[str, Mapping[str, Spread]], *, x_label: str,
    reference: float | None = None,
) -> str:
    """A row per label, the first on top, with a dot and an interval for each series; below them a
    tick for each run, where there are several.

    Args:
        labels: names of the rows.
        series: name → label → figure; a series may lack labels.
        x_label: name of the axis.
        reference: a value marked by a dashed line.
    """
    tips = []
    with mpl.rc_context(STYLE):
        figure, axes = rows_of(labels, 0.34 + 0.12 * (len(series) - 1))
        for index, (name, spreads) in enumerate(series.items()):
            offset = 0.2 * (index - (len(series) - 1) / 2)
            rows = [(place, spreads[label]) for place, label in enumerate(labels)
                    if label in spreads]
            style = mark(index)
            axes.errorbar(
                [one.value for _, one in rows], [place + offset for place, _ in rows],
                xerr=bar_lengths((one.value, one.low, one.high) for _, one in rows),
                fmt=style.marker, color=style.colour, markerfacecolor=style.face,
                markersize=6, capsize=0, elinewidth=2, label=shown_name(name),
            )
            for place, one in rows:
                row = ", ".join(part for part in (labels[place], name) if part)
                tips.append(Tip(one.value, place + offset, one.told(row, x_label)))
                below = place + offset + _BELOW
                axes.plot(
                    list(one.runs.values()), [below] * len(one.runs), "|", color=style.colour,
                    markersize=7, markeredgewidth=1.4,
                )
                tips += [
                    Tip(value, below, described(f"{row}, {run}", {x_label: (value, value, value)}))
                    for run, value in one.runs.items()
                ]
        axes.set_xlabel(x_label)
        if reference is not None:
            axes.axvline(reference, color=INK, linestyle="--", linewidth=0.9)
        legend(figure, len(series))
        return svg(figure, tips)


def paths(
    lines: Sequence[Sequence[Point]], *, x_label: str, y_label: str, log_x: bool = False,
    frontier: bool = False,
) -> str:
    """Named points with their intervals on y; those of one line share a mark and are joined.

    Args:
        lines: points in the order in which they are joined.
        x_label, y_label: of the axes.
        log_x: a logarithmic x axis.
        frontier: x is a cost: a thin line of steps joins the points that no other beats in both x
            and y (`rewardsteer.evaluation.pareto.pareto`), and their names are bold.
    """
    every = [point for line in lines for point in line]
    best = pareto({point.label: (point.x, point.y) for point in every}) if frontier else []
    with mpl.rc_context(STYLE):
        figure, axes = plane(x_label, y_label, 3.8)
        for index, line in enumerate(lines):
            style = mark(index)
            axes.errorbar(
                [point.x for point in line], [point.y for point in line],
                yerr=bar_lengths((point.y, *point.ends) for point in line), linewidth=1.2,
                fmt=style.marker + "-", color=style.colour, markerfacecolor=style.face,
                markersize=6, capsize=2, elinewidth=1,
            )
        if log_x:
            log_axis(axes)
        axes.margins(x=0.18, y=0.15)
        if len(best) > 1:
            places = {point.label: point for point in every}
            axes.step(
                [places[name].x for name in best], [places[name].y for name in best],
                where="post", color=INK, alpha=0.4, linewidth=1, linestyle=":", zorder=1,
            )
        place_names(figure, axes, [
            Named(one.x, one.y, *one.ends, shown_name(one.label, 32), one.label in best)
            for one in every
        ])
        tips = [
            Tip(one.x, one.y, described(
                one.label + (", on the frontier" if one.label in best else ""),
                {y_label: (one.y, *one.ends), x_label: (one.x, one.x, one.x)},
            )) for one in every
        ]
        return svg(figure, tips)


def curves(
    series: Mapping[str, Series], *, x_label: str, y_label: str,
    bands: Mapping[str, Series] | None = None, ends: Mapping[str, Series] | None = None,
    marks: bool = False, diagonal: bool = False, log_y: bool = False,
    reference: float | None = None, among: Sequence[str] | None = None,
) -> str:
    """Lines by name, distinguished by colour and dash.

    Args:
        series: name → x and y; a NaN interrupts the line.
        x_label, y_label: of the axes.
        bands: name → lower and upper ends of intervals, shaded behind the line.
        ends: name → lower and upper ends of intervals, drawn as bars.
        marks: also draw the points.
        diagonal: draw the line on which x and y are equal, on a square of [0, 1].
        log_y: a logarithmic y axis.
        reference: a y that a dotted line marks.
        among: all names on the page. A name then looks the same in each plot and is in the legend
            wherever the page has several names.
    """
    known, tips = list(among or series), []
    bands, ends = bands or {}, ends or {}
    with mpl.rc_context(STYLE):
        figure, axes = plane(x_label, y_label, 4.2 if diagonal else 3.3)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=":")
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_aspect("equal")
        if reference is not None:
            axes.axhline(reference, color=INK, linewidth=0.9, linestyle=":")
        for name, (xs, ys) in series.items():
            style = mark(known.index(name))
            axes.plot(
                xs, ys, label=shown_name(name), color=style.colour, linestyle=style.dash,
                linewidth=1.9, markersize=4.5, markerfacecolor=style.face,
                marker=style.marker if marks else None,
            )
            if name in bands:
                axes.fill_between(xs, *bands[name], color=style.colour, alpha=0.15, linewidth=0)
            if name in ends:
                axes.errorbar(
                    xs, ys, yerr=bar_lengths(zip(ys, *ends[name], strict=True)), fmt="none",
                    ecolor=style.colour, elinewidth=1,
                )
            lows, highs = bands.get(name) or ends.get(name) or (ys, ys)
            tips += [
                Tip(xs[i], ys[i], described(name, {
                    y_label: (ys[i], lows[i], highs[i]), x_label: (xs[i], xs[i], xs[i]),
                })) for i in thinned(len(xs))
            ]
        if log_y:
            log_axis(axes, "y")
        legend(figure, len(known))
        return svg(figure, tips)


def histograms(
    edges: Sequence[float], counts: Mapping[str, Sequence[float]], *, x_label: str
) -> str:
    """Outlines of several groups over shared bins, each as a share of its own group."""
    tips = []
    with mpl.rc_context(STYLE):
        figure, axes = plane(x_label, "share of the group", 2.9)
        for index, (name, values) in enumerate(counts.items()):
            total, style = sum(values) or 1, mark(index)
            axes.stairs(
                [value / total for value in values], edges, label=shown_name(name), fill=True,
                facecolor=(style.colour, 0.22), linewidth=1.6, edgecolor=style.colour,
                linestyle=style.dash,
            )
            tips += [
                Tip((edges[i] + edges[i + 1]) / 2, value / total,
                    f"{name}\n{x_label}: {said(edges[i])} to {said(edges[i + 1])}\n"
                    f"{value / total:.1%} of {said(total)}")
                for i, value in enumerate(values) if value
            ]
        axes.set_ylim(bottom=0)
        legend(figure, len(counts))
        return svg(figure, tips)
