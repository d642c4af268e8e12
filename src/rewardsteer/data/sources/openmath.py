"""Correct against incorrect solutions, one of each a row: question, correct, incorrect."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import read_rows, require, well_formed
from rewardsteer.errors import ConfigError
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, question: str = "question", correct: str = "correct",
    incorrect: str = "incorrect",
) -> Iterator[Comparison]:
    """Pairs made from OpenMathInstruct-1; the arguments name the fields.

    There is no published set of pairs, so ``path`` (a file or folder) is needed.
    """
    if path is None:
        raise ConfigError("The source openmath has no published place; give a path.")
    for index, (place, row) in enumerate(read_rows(split, path, "")):
        require(row, [question, correct, incorrect], place)
        with well_formed(place):
            comparison = Comparison(
                id=f"openmath-{split}-{index}", prompt=row[question], chosen=row[correct],
                rejected=row[incorrect], source="openmath", subset=str(row.get("dataset", "")),
            )
        yield comparison
