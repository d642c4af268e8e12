"""What a report page is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prose:
    """A paragraph of plain text."""

    text: str
    kind: str = "prose"


@dataclass(frozen=True)
class Table:
    """A table: the first column is a row's name, the others are figures or text.

    Attributes:
        caption: what the figures are, with units.
        columns: headings.
        rows: cells as they shall be read.
        highlight: names of rows to set off.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlight: frozenset[str] = frozenset()
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A plot: SVG from `rewardsteer.reports.plots`, what it shows in words, and a caption."""

    svg: str
    alt: str
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Samples:
    """Completions side by side: ``columns`` name the cells of each row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "samples"


@dataclass(frozen=True)
class Settings:
    """Names and values: configuration, versions, fingerprints."""

    values: Mapping[str, Any]
    kind: str = "settings"


Block = Prose | Table | Figure | Samples | Settings


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``slug`` is its anchor."""

    title: str
    slug: str
    blocks: Sequence[Block] = field(default_factory=tuple)
