"""Correct against incorrect solutions, one of each a row: question, correct, incorrect."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading, check_place, comparisons, read_rows
from rewardsteer.outputs import given
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, question: str = "question", correct: str = "correct",
    incorrect: str = "incorrect", reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Pairs made from OpenMathInstruct-1; the arguments name the fields.

    There is no published set of pairs, so ``path`` (a file or folder) is needed.
    """
    reading = reading or Reading()
    check_place("openmath", path, reading)

    def parse(row: Row, place: str) -> Comparison:
        require(row, [question, correct, incorrect], place)
        return Comparison(
            id="", prompt=row[question], chosen=row[correct], rejected=row[incorrect],
            subset=str(given(row, "dataset")),
        )

    rows = read_rows(split, path, "", reading=reading)
    yield from comparisons("openmath", split, rows, reading, parse)
