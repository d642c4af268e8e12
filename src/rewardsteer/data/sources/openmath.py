"""Rows with a question, a correct and an incorrect solution."""

from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading
from rewardsteer.outputs import given
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, question: str = "question", correct: str = "correct",
    incorrect: str = "incorrect", reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Pairs made from OpenMathInstruct-1; the arguments name the fields.

    There is no published set of pairs, so ``path`` (a file or folder) is needed.
    """
    def parse(row: Row, place: str) -> Comparison:
        require(row, [question, correct, incorrect], place)
        return Comparison(
            id="", prompt=row[question], chosen=row[correct], rejected=row[incorrect],
            subset=str(given(row, "dataset")),
        )

    yield from read_comparisons("openmath", split, path, reading, parse)
