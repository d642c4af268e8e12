"""Correct against incorrect solutions, one of each a row: question, correct, incorrect."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import require, well_formed
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError
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
    for index, (place, row) in enumerate(read_rows(split, path, "", reading=reading)):
        comparison = None
        with reading.row(), well_formed(place):
            require(row, [question, correct, incorrect], place)
            comparison = Comparison(
                id=f"openmath-{split}-{index}", prompt=row[question], chosen=row[correct],
                rejected=row[incorrect], source="openmath", subset=str(row.get("dataset", "")),
                place=place,
            )
        if comparison is not None:
            yield comparison
