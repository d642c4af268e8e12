"""What a benchmark of reward models is made of: items to score, what each score is worth, figures.

A benchmark is a class derived from `RewardBenchmark` in a file of its own. Its figures are computed
from sums over items alone, so that the bootstrap (`measuring`) can resample the items' clusters.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rewardsteer.data.sources.files import Row, require, well_formed
from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt

Scores = Sequence[np.ndarray]


@dataclass(frozen=True)
class Item:
    """What is scored together.

    Attributes:
        id: names the item in files of scores.
        prompt: text or conversation.
        completions: C texts that are scored, or the C steps of one solution.
        subset: the part of the benchmark that it belongs to.
        cluster: items of one cluster (of one question) are alike and are resampled together.
        truth: what is right, in the benchmark's own form.
    """

    id: str
    prompt: Prompt
    completions: tuple[str, ...]
    subset: str
    cluster: str
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the scores of an item, or of several that belong together, are worth.

    Attributes:
        subset: where it counts.
        cluster: resampled together.
        sums: ``[F]`` numbers whose sums over outcomes give the figures.
        stratum: clusters are drawn within it, as many as there are; "" draws from all.
    """

    subset: str
    cluster: str
    sums: np.ndarray
    stratum: str = ""


class RewardBenchmark(abc.ABC):
    """One benchmark.

    Attributes:
        hub: the published data set; "" where there are several.
        split: its split.
        steps: whether the completions of an item are the steps of one solution.
        source: where rules and figures are published.
        options: names of the class's arguments.
    """

    hub: ClassVar[str] = ""
    split: ClassVar[str] = "test"
    steps: ClassVar[bool] = False
    source: ClassVar[str] = ""
    options: ClassVar[tuple[str, ...]] = ()

    def items(self, rows: Iterator[tuple[str, Row]]) -> list[Item]:
        """The items of the published rows.

        Raises:
            DataError: names the row at fault, or an id that occurs twice.
        """
        found: dict[str, Item] = {}
        for number, (place, row) in enumerate(rows):
            with well_formed(place):
                item = self.read(row, number, place)
            if item is None:
                continue
            if item.id in found:
                raise DataError(f"{place}: the id {item.id!r} occurs twice.")
            found[item.id] = item
        if not found:
            raise DataError("The benchmark's data holds no rows to score.")
        return list(found.values())

    @abc.abstractmethod
    def read(self, row: Row, number: int, place: str) -> Item | None:
        """The item of a row; None for a row that the benchmark leaves out."""

    @abc.abstractmethod
    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        """What scores ``[C]`` of each item are worth."""

    @abc.abstractmethod
    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Figures by name, of the sums ``[F]`` by subset; one that the data cannot give is left
        out."""


def pair_item(
    row: Row, number: int, place: str, *, subset: str, id_field: str = "id"
) -> Item:
    """The item of a row with ``prompt``, ``chosen`` and ``rejected``, the chosen response first.

    Raises:
        DataError: a field is missing or is no text.
    """
    require(row, ["prompt", "chosen", "rejected"], place)
    chosen, rejected = text(row, "chosen", place), text(row, "rejected", place)
    name = str(row.get(id_field, number))
    return Item(
        f"{subset}/{name}", as_prompt(row["prompt"], place), (chosen, rejected), subset, name
    )


def text(row: Row, name: str, place: str) -> str:
    """A field that is text; raises `DataError` for anything else."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"{place}: expected text in {name}, got {type(value).__name__}.")
    return value


def texts(row: Row, name: str, place: str) -> list[str]:
    """A field that is a list of texts; raises `DataError` for anything else."""
    value = row.get(name)
    if not isinstance(value, list) or any(not isinstance(one, str) for one in value):
        raise DataError(f"{place}: expected a list of texts in {name}.")
    return value


def as_prompt(value: Any, place: str) -> Prompt:
    """A text, or a conversation; raises `DataError` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        return [Message.model_validate(turn) for turn in value]
    raise DataError(f"{place}: expected a prompt as text or messages, got {type(value).__name__}.")


def ratio(sums: np.ndarray) -> float:
    """First over second; NaN for 0/0, which `measuring` leaves out."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def mean_of(figures: Mapping[str, float], names: Sequence[str]) -> float | None:
    """The unweighted mean of figures; None unless all are there."""
    if any(name not in figures for name in names):
        return None
    return float(np.mean([figures[name] for name in names]))
