"""Common parts of all plots: style, marks, and the conversion of a figure to SVG for a page."""

import html
import io
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
INK = "#123457"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p")
_WIDTH = 4.8  # inches; a page scales it to its column, and text must stay readable on a phone
_MOST_TIPS = 60  # points of a line that show their values; more would only make the page larger

STYLE: Any = {
    "svg.hashsalt": "rewardsteer",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    # Names come from users, so a dollar sign is no formula.
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4,
}


class Tip(NamedTuple):
    """A tooltip of a plot; x and y are data coordinates."""

    x: float
    y: float
    text: str


class Mark(NamedTuple):
    """Colour, dash and marker of one of several series."""

    colour: str
    dash: str
    marker: str
    hollow: bool

    @property
    def face(self) -> str:
        """Fill colour of the marker."""
        return "none" if self.hollow else self.colour


def mark(index: int) -> Mark:
    """The mark of the series at an index: 22 differ in shape alone, 28 lines in colour and dash."""
    return Mark(
        COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)],
        _MARKERS[index % len(_MARKERS)], (index // len(_MARKERS)) % 2 == 1,
    )


def plane(x_label: str, y_label: str, height: float) -> tuple[Any, Any]:
    """A figure with two named axes; ``height`` in inches."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def rows_of(labels: Sequence[str], height: float = 0.34) -> tuple[Any, Any]:
    """A figure with one row per label, the first on top."""
    figure = Figure(figsize=(_WIDTH, 0.9 + height * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), [shown_name(label, 22) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.spines["left"].set_visible(False)
    return figure, axes


def log_axis(axes: Any, name: Literal["x", "y"] = "x") -> None:
    """A logarithmic axis with plain numbers."""
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Any, count: int) -> None:
    """Add a legend above the plot, where it covers nothing; a single series gets none."""
    if count > 1:
        names = figure.axes[0].get_legend_handles_labels()[1]
        short = max(map(len, names)) <= 24
        figure.legend(loc="outside upper left", ncols=2 if short else 1, borderpad=0.1)


def shown_name(text: str, longest: int = 48) -> str:
    """A name that can be drawn: without control characters, not too long, and protected where it
    begins with "_", which matplotlib leaves out of legends."""
    kept = "".join(letter for letter in text if letter.isprintable())
    kept = kept if len(kept) <= longest else kept[: longest - 1] + "…"
    return "\u200b" + kept if kept.startswith("_") else kept


def said(value: float) -> str:
    """A number as text: four digits, or all digits of a number from 1000 on."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def thinned(count: int) -> list[int]:
    """Indices of the points of a line of ``count`` points that get a tooltip; both ends do."""
    if count <= _MOST_TIPS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (_MOST_TIPS - 1)) for i in range(_MOST_TIPS)})


def svg(figure: Any, tips: Sequence[Tip] = ()) -> str:
    """The figure as SVG text that takes its colours and its width from the page."""
    buffer = io.StringIO()
    # Not cropped: all plots of a page have the same width, so their text has the same size.
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # The page scales the plot to its column; a fixed size would overflow a phone.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', text, count=1)
    # Metadata holds outside addresses, which a page for offline use should not have.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    if not tips:
        return text
    end = text.rindex("</svg>")
    return f'{text[:end]}<g class="tips">{"".join(_spots(figure, tips))}</g>\n{text[end:]}'


def _spots(figure: Any, tips: Sequence[Tip]) -> list[str]:
    """An invisible circle at each tip, whose title browsers show without a script."""
    axes, found = figure.axes[0], []
    width, height = figure.bbox.size
    wide, tall = 72 * figure.get_size_inches()
    for tip in tips:
        x, y = axes.transData.transform((tip.x, tip.y))
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        found.append(
            f'<circle cx="{x / width * wide:.1f}" cy="{(1 - y / height) * tall:.1f}" r="5" '
            f'fill="none" pointer-events="all"><title>{html.escape(tip.text)}</title></circle>'
        )
    return found
