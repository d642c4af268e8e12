"""Correct against incorrect solutions, one of each a row: question, correct, incorrect."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading, comparisons, read_rows
from rewardsteer.errors import ConfigError
from rewardsteer.outputs import given
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, question: str = "question", correct: str = "correct",
    incorrect: str = "incorrect", reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Pairs made from OpenMathInstruct-1; the arguments name the fields.

    There is no published set of pairs, so ``path`` (a file or folder) is needed.
    """
    if path is None and (reading is None or reading.hub is None):
        raise ConfigError("The source openmath has no published place; give a path.")
    reading = reading or Reading()

    def parse(row: Row, place: str) -> Comparison:
        require(row, [question, correct, incorrect], place)
        return Comparison(
            id="", prompt=row[question], chosen=row[correct], rejected=row[incorrect],
            subset=str(given(row, "dataset")),
        )

    rows = read_rows(split, path, "", reading=reading)
    yield from comparisons("openmath", split, rows, reading, parse)
