"""Several graded solutions of one question → correct against incorrect, split by question.

The layouts are those of `rewardsteer.data.solutions`.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import product

from rewardsteer.data.solutions import QUESTIONS, graded_texts
from rewardsteer.data.sources.files import Row, well_formed
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, max_pairs: int = 4, seed: int = 0,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """At most ``max_pairs`` pairs per question, drawn at random with the seed.

    Raises:
        ConfigError: no path.
        DataError: rows without gradings.
    """
    reading = reading or Reading()
    if path is None and reading.hub is None:
        raise ConfigError("The source graded has no published place; give a path.")
    correct_texts: dict[str, set[str]] = defaultdict(set)
    incorrect_texts: dict[str, set[str]] = defaultdict(set)
    for place, row in read_rows(split, path, "", reading=reading):
        with reading.row():
            question, solutions = _graded(row, place)
            for text, correct in solutions:
                (correct_texts if correct else incorrect_texts)[question].add(text)
    rng = random.Random(seed)
    index = 0
    for question in sorted(correct_texts.keys() & incorrect_texts.keys()):
        combinations = list(
            product(sorted(correct_texts[question]), sorted(incorrect_texts[question]))
        )
        for chosen, rejected in rng.sample(combinations, min(max_pairs, len(combinations))):
            yield Comparison(
                id=f"graded-{split}-{index}", prompt=question, chosen=chosen, rejected=rejected,
                source="graded",
            )
            index += 1


def _graded(row: Row, place: str) -> tuple[str, list[tuple[str, bool]]]:
    question = next((row[name] for name in QUESTIONS if row.get(name)), None)
    with well_formed(place):
        solutions = list(graded_texts(row))
    if not isinstance(question, str) or not solutions:
        raise DataError(
            f"{place}: expected a question and graded solutions (is_correct), found the fields "
            f"{', '.join(sorted(row))}."
        )
    return question, solutions
