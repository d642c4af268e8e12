"""The base class of benchmarks of reward models: items to score, outcomes of scores, figures.

A benchmark is a class derived from `RewardBenchmark` in a file of its own. Its figures are computed
from sums over items alone, so that the bootstrap (`measuring`) can resample the items' clusters.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rewardsteer.data.sources.files import Row, kind_of, require, well_formed
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import DataError
from rewardsteer.records import Prompt

Scores = Sequence[np.ndarray]


@dataclass(frozen=True)
class Item:
    """One item: a prompt with completions that are scored together.

    Attributes:
        id: name of the item in files of scores.
        prompt: text or conversation.
        completions: C texts to score, or the C steps of one solution.
        subset: the part of the benchmark that it belongs to.
        cluster: items of one cluster (one question) are alike and are resampled together.
        truth: the labels, in the benchmark's own form.
    """

    id: str
    prompt: Prompt
    completions: tuple[str, ...]
    subset: str
    cluster: str
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of the scores of one item, or of several items that are evaluated together.

    Attributes:
        subset: the part of the benchmark that it counts in.
        cluster: outcomes of one cluster are resampled together.
        sums: ``[F]`` numbers; figures are computed from their sums over outcomes.
        stratum: each resample draws as many clusters of a stratum as it has; "" for no strata.
    """

    subset: str
    cluster: str
    sums: np.ndarray
    stratum: str = ""


class RewardBenchmark(abc.ABC):
    """One benchmark.

    Attributes:
        hub: the published data set; "" where there are several.
        split: the data set's split.
        steps: whether the completions of an item are the steps of one solution.
        source: the publication of rules and figures.
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
        """The outcomes of the scores ``[C]`` of each item."""

    @abc.abstractmethod
    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Figures by name, from the sums ``[F]`` of each subset; undefined figures are left out.

        Sums of NaN give figures of NaN (or none): this tells which subsets a figure is over.
        """


class StepBenchmark(RewardBenchmark):
    """A benchmark that compares the scores of steps with a threshold.

    Args:
        threshold: of step scores; 0.5 for models that give the probability of a correct step.
    """

    steps = True
    options = ("threshold",)

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold


def pair_item(row: Row, number: int, place: str, *, subset: str) -> Item:
    """The item of a row with ``prompt``, ``chosen`` and ``rejected``, the chosen response first.
    Responses may be messages.

    Raises:
        DataError: a field is missing, or neither text nor messages.
    """
    require(row, ["prompt", "chosen", "rejected"], place)
    prompt, texts = answered(row["prompt"], [row["chosen"], row["rejected"]], place)
    return Item(f"{subset}/{row.get('id', number)}", prompt, texts, subset, repr(prompt))


def answered(
    prompt: Any, responses: Sequence[Any], place: str, key: str = "a response"
) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt of a row, and its responses as texts; each is text or messages.

    Raises:
        DataError: another form (see `read_pair`), or responses that differ before their last
            message.
    """
    pairs = [read_pair(prompt, one, place, key) for one in responses]
    if any(own != pairs[0][0] for own, _ in pairs):
        raise DataError(
            f"{place}: expected responses that part at their last message alone, for a benchmark "
            "compares answers to one prompt."
        )
    return pairs[0][0], tuple(text for _, text in pairs)


def responses(row: Row, name: str, place: str) -> list[Any]:
    """A field that is a list of responses; raises `DataError` for anything else."""
    value = row.get(name)
    if not isinstance(value, list):
        raise DataError(
            f"{place}: expected a list of responses, each text or messages, in {name}; got "
            f"{kind_of(value)}."
        )
    return value


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


def ratio(sums: np.ndarray) -> float:
    """The first sum divided by the second; NaN for 0/0, which `measuring` leaves out."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def mean_of(figures: Mapping[str, float], names: Sequence[str]) -> float | None:
    """The unweighted mean of the named figures; None unless all are there."""
    if any(name not in figures for name in names):
        return None
    return float(np.mean([figures[name] for name in names]))
