"""Pairs of correct and incorrect solutions, from graded solutions; split by question.

The layouts are those of `rewardsteer.data.solutions`.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from rewardsteer.configuration import Count, Seed
from rewardsteer.data.balancing import SourcedPair, balanced, source_accuracy
from rewardsteer.data.solutions import QUESTIONS, graded_solutions, source_of
from rewardsteer.data.sources.files import Row, fields_of, well_formed
from rewardsteer.data.sources.options import check_choice
from rewardsteer.data.sources.reading import Reading, check_place, read_rows
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Solution

_BALANCES = ("source", "model")
# A note is made when the source alone predicts the correct solution of a larger share of pairs.
_TELLING = 0.6


class _Texts(NamedTuple):
    """Correct and incorrect solutions of a question, each text with its source."""

    correct: dict[str, str]
    incorrect: dict[str, str]


def load(
    split: str, *, path: str | None = None, max_pairs: Count = 4, seed: Seed = 0,
    balance_by: str | None = None, reading: Reading | None = None,
) -> Iterator[Comparison]:
    """At most ``max_pairs`` pairs per question, drawn at random with the seed.

    Args:
        path: local file or folder.
        max_pairs: per question.
        seed: of the draw.
        balance_by: ``source`` (model and prompt style) or ``model``. In the pairs between any two
            of them, each wrote as many preferred as dispreferred solutions, so it does not predict
            correctness. Surplus pairs are dropped and counted.
        reading: see `Reading`; a note gives the share of pairs that the source alone predicts.

    Raises:
        ConfigError: no path, or an unknown ``balance_by``.
        DataError: rows without labels, or only one source to balance by.
    """
    reading = reading or Reading()
    check_place("graded", path, reading)
    if balance_by is not None:
        check_choice("balance_by", balance_by, _BALANCES)
    questions = _read(split, path, balance_by, reading)
    for index, pair in enumerate(_draw(questions, max_pairs, seed, balance_by, reading)):
        yield Comparison(
            id=f"graded-{split}-{index}", prompt=pair.question, chosen=pair.chosen,
            rejected=pair.rejected, source="graded", chosen_by=pair.chosen_by,
            rejected_by=pair.rejected_by,
        )


def _read(
    split: str, path: str | None, balance_by: str | None, reading: Reading
) -> dict[str, _Texts]:
    questions: dict[str, _Texts] = defaultdict(lambda: _Texts({}, {}))
    for place, row in read_rows(split, path, "", reading=reading):
        with reading.row():
            question, solutions = _graded(row, place)
            for one in solutions:
                texts = questions[question].correct if one.is_correct else \
                    questions[question].incorrect
                source = one.model if balance_by == "model" else source_of(one)
                texts.setdefault(one.completion, source)
    return questions


def _draw(
    questions: Mapping[str, _Texts], max_pairs: int, seed: int, balance_by: str | None,
    reading: Reading,
) -> list[SourcedPair]:
    """The kept pairs, by question; adds a note on how well the source predicts the correct one."""
    every = {
        question: [
            SourcedPair(question, chosen, rejected, texts.correct[chosen],
                        texts.incorrect[rejected])
            for chosen, rejected in product(sorted(texts.correct), sorted(texts.incorrect))
        ]
        for question, texts in sorted(questions.items()) if texts.correct and texts.incorrect
    }
    rng = random.Random(seed)
    drawn = [
        pair for found in every.values()
        for pair in rng.sample(found, min(max_pairs, len(found)))
    ]
    solutions = [
        (question, source, correct) for question, texts in questions.items()
        for correct, of_label in ((True, texts.correct), (False, texts.incorrect))
        for source in of_label.values()
    ]
    if len({source for _, source, _ in solutions}) < 2:
        if balance_by is not None:
            raise DataError(
                f"balance_by={balance_by} needs solutions of several sources; all {len(solutions)} "
                "name the same one or none (fields model and prompt, see docs/scoring.md)."
            )
        return drawn
    before = source_accuracy(drawn, solutions)
    if balance_by is None:
        if before > _TELLING:
            reading.note(
                f"Who wrote a solution tells {before:.1%} of the {len(drawn)} pairs apart; "
                "balance_by=source takes pairs that it does not tell apart."
            )
        return drawn
    kept = balanced(every, max_pairs, rng)
    if not kept:
        raise DataError(
            f"No pair is left with balance_by={balance_by}: of no two sources has each a correct "
            "solution where the other has an incorrect one."
        )
    reading.note(
        f"Who wrote a solution ({balance_by}) told {before:.1%} of {len(drawn)} pairs apart before "
        f"balancing, {source_accuracy(kept, solutions):.1%} of {len(kept)} after."
    )
    return kept


def _graded(row: Row, place: str) -> tuple[str, list[Solution]]:
    question = next((row[name] for name in QUESTIONS if row.get(name)), None)
    with well_formed(place):
        solutions = list(graded_solutions(row, place))
    if not isinstance(question, str) or not solutions:
        raise DataError(
            f"{place}: expected a question and graded solutions (is_correct), found the fields "
            f"{fields_of(row)}."
        )
    return question, solutions
