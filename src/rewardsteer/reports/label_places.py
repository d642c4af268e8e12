"""Positions of the names of a plot's points, so that no name covers a point or another name."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties

from rewardsteer.reports.drawing import INK

_SIZE = 9  # points
_MARK = 4.5  # half the width of a marker with some air, in points
_FAR = (6, 14, 24, 36, 50, 66, 84)  # points between marker and name; a line joins the far ones
# Directions from a point to its name, in order of preference.
_WAYS = (
    (1, 0), (1, 0.7), (1, -0.7), (0, 1), (0, -1), (-1, 0), (-1, 0.7), (-1, -0.7), (0.45, 1),
    (0.45, -1), (-0.45, 1), (-0.45, -1),
)


class Box(NamedTuple):
    """A rectangle on the drawing, in points."""

    left: float
    low: float
    right: float
    high: float


class Named(NamedTuple):
    """A point with its error bar's ends and its name; x and y are data coordinates."""

    x: float
    y: float
    low: float
    high: float
    name: str
    bold: bool = False


def overlap(first: Box, second: Box) -> float:
    """Shared area, in square points."""
    wide = min(first.right, second.right) - max(first.left, second.left)
    tall = min(first.high, second.high) - max(first.low, second.low)
    return max(wide, 0.0) * max(tall, 0.0)


def place_names(figure: Any, axes: Any, points: Sequence[Named]) -> list[Box]:
    """Write the name of each point; returns the names' boxes.

    A name goes to the nearest position on the plot where it covers no point, error bar or other
    name; without such a position, to the one where it covers least. The axes must be final.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # the layout
    scale = 72 / figure.dpi
    frame = axes.bbox
    field = Box(
        frame.x0 * scale, frame.y0 * scale, figure.bbox.width * scale - 2, frame.y1 * scale + 8
    )
    spots = [axes.transData.transform((one.x, one.y)) * scale for one in points]
    taken: list[Box] = []
    for one, (x, y) in zip(points, spots, strict=True):
        _, low = axes.transData.transform((one.x, one.low)) * scale
        _, high = axes.transData.transform((one.x, one.high)) * scale
        taken.append(Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK))
        taken.append(Box(x - 1.5, min(low, y), x + 1.5, max(high, y)))
    written = []
    for one, (x, y) in zip(points, spots, strict=True):
        font = FontProperties(size=_SIZE, weight="bold" if one.bold else "normal")
        width, height, _ = renderer.get_text_width_height_descent(one.name, font, ismath=False)
        box, distance = _place((x, y), (width * scale, height * scale), field, taken)
        taken.append(box)
        written.append(box)
        far = {"arrowstyle": "-", "color": INK, "alpha": 0.45, "linewidth": 0.6, "shrinkA": 0,
               "shrinkB": 4}
        axes.annotate(
            one.name, (one.x, one.y), xytext=(box.left - x, box.low - y),
            textcoords="offset points", fontproperties=font, ha="left", va="bottom",
            arrowprops=far if distance > _FAR[0] else None,
        ).set_in_layout(False)
    return written


def _place(
    spot: tuple[float, float], size: tuple[float, float], field: Box, taken: Sequence[Box]
) -> tuple[Box, float]:
    """The nearest free box of a size around a spot, and its distance."""
    least, best = float("inf"), (Box(0, 0, 0, 0), 0.0)
    for distance in _FAR:
        for across, up in _WAYS:
            box = _beside(spot, size, (across * distance, up * distance), (across, up))
            covered = sum(overlap(box, other) for other in taken)
            outside = size[0] * size[1] - overlap(box, field)
            cost = covered + 3 * max(outside, 0.0)
            if cost < 1e-6:
                return box, distance
            if cost < least:
                least, best = cost, (box, distance)
    return best


def _beside(
    spot: tuple[float, float], size: tuple[float, float], away: tuple[float, float],
    way: tuple[float, float],
) -> Box:
    """The box whose near edge (seen in direction ``way``) is centred at ``away`` from a spot."""
    x, y = spot[0] + away[0], spot[1] + away[1]
    left = x if way[0] >= 0.7 else x - size[0] if way[0] <= -0.7 else x - size[0] / 2
    low = y - size[1] / 2 if abs(way[0]) >= 0.7 else y if way[1] > 0 else y - size[1]
    return Box(left, low, left + size[0], low + size[1])
