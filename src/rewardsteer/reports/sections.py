"""Sections of a report page and the blocks in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

R = TypeVar("R")

NOTHING = "–"  # stands in a table for a figure that was not measured


class Block:
    """A part of a section, which the page's template shows by its ``kind``."""

    @property
    def kind(self) -> str:
        """The class's name in lower case."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Prose(Block):
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Heading(Block):
    """A title within a section."""

    text: str


class Tile(NamedTuple):
    """One large figure with its name and a note."""

    name: str
    figure: str
    note: str


@dataclass(frozen=True)
class Tiles(Block):
    """Figures at a glance."""

    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Table(Block):
    """A table: the first column is a row's name, the others are figures or text.

    Attributes:
        caption: what the figures are, with units.
        highlight: names of rows to set off.
        further: headings of columns that are hidden until a reader shows them; without scripts all
            are shown.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlight: frozenset[str] = frozenset()
    further: frozenset[str] = frozenset()

    @property
    def measured(self) -> list[int]:
        """Indices of the columns with at least one measured figure, which a page shows."""
        others = range(1, len(self.columns))
        return [0, *(one for one in others if any(row[one] != NOTHING for row in self.rows))]


class Cell(NamedTuple):
    """A cell of a matrix: its text, the text of its tooltip, and whether the row's method is
    ``better`` or ``worse``; "" where that is open."""

    text: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class Matrix(Block):
    """A table of all pairs of names: one cell per row and column, None on the diagonal."""

    caption: str
    names: Sequence[str]
    cells: Sequence[Sequence[Cell | None]]


@dataclass(frozen=True)
class Figure(Block):
    """A plot: SVG from `rewardsteer.reports.plots`, what it shows in words, and a caption."""

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Figures(Block):
    """Plots side by side where there is room."""

    figures: Sequence[Figure]


class Answer(NamedTuple):
    """The response of one method (its index), with its reward and, if known, correctness."""

    method: int
    text: str
    reward: float
    correct: bool | None = None


class Sample(NamedTuple):
    """A prompt with the answers of all methods."""

    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Samples(Block):
    """Completions side by side, with search and filters."""

    caption: str
    methods: Sequence[str]
    samples: Sequence[Sample]

    @property
    def judged(self) -> bool:
        """Whether the correctness of some answer is known."""
        return any(
            answer.correct is not None for sample in self.samples for answer in sample.answers
        )


@dataclass(frozen=True)
class Flips(Block):
    """All prompts with the values of several methods, to find those on which two methods differ.

    Attributes:
        prompts: id and (possibly truncated) text of each prompt.
        values: value of each measure, method and prompt; None where it is not known.
        responses: index of a prompt (as text) → the response of each method, for some prompts.
    """

    caption: str
    methods: Sequence[str]
    measures: Sequence[str]
    prompts: Sequence[tuple[str, str]]
    values: Sequence[Sequence[Sequence[float | None]]]
    responses: Mapping[str, Sequence[str]]

    @property
    def data(self) -> dict[str, Any]:
        """The content as plain values, for the page's script."""
        return {name: value for name, value in vars(self).items() if name != "caption"}


@dataclass(frozen=True)
class Inspector(Block):
    """Completions token by token: each an `Inspection` as plain values."""

    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Settings(Block):
    """Folded names and values: configuration, versions, fingerprints."""

    values: Mapping[str, Any]
    title: str = "Settings"


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that a reader opens, under one title."""

    title: str
    blocks: Sequence[Block]


class Section(NamedTuple):
    """A titled part of the page; ``slug`` is its anchor."""

    title: str
    slug: str
    blocks: Sequence[Block]


def run_by_run(runs: Mapping[str, R], blocks_of: Callable[[R], Iterable[Block]]) -> list[Block]:
    """Blocks of each run, by name, under its name where there are several."""
    blocks: list[Block] = []
    for name, run in runs.items():
        blocks += [*([Heading(name)] if len(runs) > 1 else []), *blocks_of(run)]
    return blocks
