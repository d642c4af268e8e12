"""Blocks of a report page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        further: headings of columns that a reader asks for; without scripts and on paper all are
            shown.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlight: frozenset[str] = frozenset()
    further: frozenset[str] = frozenset()
    kind: str = "table"

    @property
    def measured(self) -> list[int]:
        """Places of the columns that a page shows: not those in which nothing was measured."""
        return [
            place for place in range(len(self.columns))
            if place == 0 or any(row[place] != "–" for row in self.rows)
        ]


@dataclass(frozen=True)
class Cell:
    """One pair of a matrix: a short text, what a reader who points at it is told, and whether the
    row's method is ``better`` or ``worse``; "" where that is open."""

    text: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class Matrix:
    """Each name against each other: the cell of a row and a column, None on the diagonal."""

    caption: str
    names: Sequence[str]
    cells: Sequence[Sequence[Cell | None]]
    kind: str = "matrix"


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
class Flips:
    """All prompts under any two of several methods, to find those on which they differ.

    Attributes:
        methods: names.
        measures: names of the figures.
        prompts: of each prompt its id and its text, which may be cut.
        values: figure of each measure, method and prompt; None where it is not known.
        responses: of some prompts (their places, as text), the response of each method.
    """

    caption: str
    methods: Sequence[str]
    measures: Sequence[str]
    prompts: Sequence[tuple[str, str]]
    values: Sequence[Sequence[Sequence[float | None]]]
    responses: Mapping[str, Sequence[str]]
    kind: str = "flips"

    @property
    def data(self) -> dict[str, Any]:
        """Plain values for the page's script."""
        return {
            "methods": self.methods, "measures": self.measures, "prompts": self.prompts,
            "values": self.values, "responses": self.responses,
        }


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


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens, under one title."""

    title: str
    blocks: Sequence["Block"]
    kind: str = "folded"


Block = (
    Prose | Heading | Tiles | Table | Matrix | Figure | Figures | Samples | Flips | Inspector
    | Settings | Folded
)


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``slug`` is its anchor."""

    title: str
    slug: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def run_by_run(
    runs: Mapping[str, Any], blocks_of: Callable[[Any], Iterable[Block]]
) -> list[Block]:
    """Blocks of each run, by name, under its name where there are several."""
    return [
        block for name, run in runs.items()
        for block in ([Heading(name)] if len(runs) > 1 else []) + list(blocks_of(run))
    ]
