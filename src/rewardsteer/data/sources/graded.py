"""Several graded solutions of one question → right against wrong, split by question.

Three layouts: one solution a row (``question``, ``solution``/``generation``, ``is_correct``); a
question with named models, each ``{solution, is_correct}`` (OpenAI's GSM8K example solutions); and
a question with lists of completions and flags (Faithful-COT).
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from rewardsteer.data.sources.files import Row, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison

_TEXTS = ("solution", "generation", "generated_solution", "completion", "text")


def load(
    split: str, *, path: str | None = None, max_pairs: int = 4, seed: int = 0
) -> Iterator[Comparison]:
    """At most ``max_pairs`` pairs per question, drawn at random with the seed.

    Raises:
        ConfigError: no path.
        DataError: rows without gradings.
    """
    if path is None:
        raise ConfigError("The source graded has no published place; give a path.")
    right: dict[str, set[str]] = defaultdict(set)
    wrong: dict[str, set[str]] = defaultdict(set)
    for place, row in read_rows(split, path, ""):
        question = row.get("question")
        solutions = list(_solutions(row))
        if not isinstance(question, str) or not solutions:
            raise DataError(
                f"{place}: expected a question and graded solutions (is_correct), found the fields "
                f"{', '.join(sorted(row))}."
            )
        for text, correct in solutions:
            (right if correct else wrong)[question].add(text)
    rng = random.Random(seed)
    index = 0
    for question in sorted(right.keys() & wrong.keys()):
        combinations = [(c, r) for c in sorted(right[question]) for r in sorted(wrong[question])]
        for chosen, rejected in rng.sample(combinations, min(max_pairs, len(combinations))):
            yield Comparison(
                id=f"graded-{split}-{index}", prompt=question, chosen=chosen, rejected=rejected,
                source="graded",
            )
            index += 1


def _solutions(row: Row) -> Iterator[tuple[str, bool]]:
    """Every ``(text, correct)`` in a row, at whatever depth the layout has it."""
    text = next((row[name] for name in _TEXTS if name in row), None)
    grade = row.get("is_correct")
    if isinstance(text, str) and isinstance(grade, bool | int):
        yield text, bool(grade)
    elif isinstance(text, list) and isinstance(grade, list):
        yield from _zipped(text, grade)
    else:
        for value in row.values():
            for nested in value if isinstance(value, list) else [value]:
                if isinstance(nested, dict):
                    yield from _solutions(nested)


def _zipped(texts: list[Any], grades: list[Any]) -> Iterator[tuple[str, bool]]:
    for text, grade in zip(texts, grades, strict=True):
        if isinstance(text, str) and grade is not None:
            yield text, bool(grade)
