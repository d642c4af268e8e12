"""Blocks of a report page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prose:
    """A paragraph of plain text."""

    text: str
    kind: str = "prose"


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Tile:
    """One large figure with its name and a note."""

    name: str
    figure: str
    note: str


@dataclass(frozen=True)
class Tiles:
    """Figures at a glance."""

    tiles: Sequence[Tile]
    kind: str = "tiles"


@dataclass(frozen=True)
class Table:
    """A table: the first column is a row's name, the others are figures or text.

    Attributes:
        caption: what the figures are, with units.
        columns: headings.
        rows: formatted cells.
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
class Figures:
    """Plots side by side where there is room."""

    figures: Sequence[Figure]
    kind: str = "figures"


@dataclass(frozen=True)
class Answer:
    """The response of one method (its index), with its reward and, if known, correctness."""

    method: int
    text: str
    reward: float
    correct: bool | None = None


@dataclass(frozen=True)
class Sample:
    """A prompt with the answers of all methods."""

    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Samples:
    """Completions side by side, to be searched and filtered."""

    caption: str
    methods: Sequence[str]
    samples: Sequence[Sample]
    kind: str = "samples"

    @property
    def judged(self) -> bool:
        """Whether the correctness of some answer is known."""
        return any(
            answer.correct is not None for sample in self.samples for answer in sample.answers
        )


@dataclass(frozen=True)
class Inspector:
    """Completions token by token: `rewardsteer.records.Inspection` as plain values."""

    records: Sequence[Mapping[str, Any]]
    kind: str = "inspector"


@dataclass(frozen=True)
class Settings:
    """Names and values, folded away: configuration, versions, fingerprints."""

    values: Mapping[str, Any]
    title: str = "Settings"
    open: bool = False
    kind: str = "settings"


Block = (
    Prose | Heading | Tiles | Table | Figure | Figures | Samples | Inspector | Settings
)


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``slug`` is its anchor."""

    title: str
    slug: str
    blocks: Sequence[Block] = field(default_factory=tuple)
