"""Pairs of solutions from which nobody can tell the correct one by who wrote it."""

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FOLDS = 5


class SourcedPair(NamedTuple):
    """A correct and an incorrect solution of one question, and their sources."""

    question: str
    chosen: str
    rejected: str
    chosen_by: str
    rejected_by: str


def balanced(
    pairs: Mapping[str, Sequence[SourcedPair]], max_pairs: int, rng: random.Random
) -> list[SourcedPair]:
    """At most ``max_pairs`` per question, of which for any two sources A and B as many prefer A's
    solution as prefer B's.

    Pairs of one source come first, then those whose direction is the rarest in the data; what one
    direction has more of is dropped at random.

    Args:
        pairs: all pairs by question.
        max_pairs: per question.
        rng: draws among equal pairs.
    """
    common = Counter(_direction(pair) for found in pairs.values() for pair in found)
    taken: dict[tuple[str, str], list[SourcedPair]] = defaultdict(list)
    for _, found in sorted(pairs.items()):
        order = rng.sample(list(found), len(found))
        order.sort(key=lambda one: (one.chosen_by != one.rejected_by, common[_direction(one)]))
        for pair in order[:max_pairs]:
            taken[_direction(pair)].append(pair)
    kept: list[SourcedPair] = []
    for (first, second), found in sorted(taken.items()):
        other = taken.get((second, first), [])
        size = len(found) if first == second else min(len(found), len(other))
        kept += rng.sample(found, size)
    return sorted(kept)


def source_accuracy(
    pairs: Sequence[SourcedPair], solutions: Sequence[tuple[str, str, bool]]
) -> float:
    """The share of pairs in which the source alone prefers the correct solution, a tie counting one
    half; NaN without pairs.

    Args:
        pairs: to be told apart.
        solutions: question, source and label of each solution. A source's score is its share of
            correct ones on other questions (five folds), one half where it has none.
    """
    won = _told_apart(pairs, solutions)
    return sum(won) / len(won) if won else float("nan")


def pairs_told_apart(pairs: Sequence[SourcedPair]) -> list[float]:
    """Whether the source alone prefers the chosen response of each pair, one half for a tie.

    A source's score is the share of its pairs with other sources on other questions in which it is
    preferred.
    """
    return _told_apart(pairs, [
        (pair.question, source, chosen) for pair in pairs if pair.chosen_by != pair.rejected_by
        for source, chosen in ((pair.chosen_by, True), (pair.rejected_by, False))
    ])


def _told_apart(
    pairs: Sequence[SourcedPair], labelled: Sequence[tuple[str, str, bool]]
) -> list[float]:
    counts: list[dict[str, list[int]]] = [defaultdict(lambda: [0, 0]) for _ in range(FOLDS)]
    for question, source, preferred in labelled:
        for fold in range(FOLDS):
            if fold != fold_of(question):
                counts[fold][source][0] += preferred
                counts[fold][source][1] += 1

    def score(question: str, source: str) -> float:
        right, total = counts[fold_of(question)].get(source, (0, 0))
        return right / total if total else 0.5

    won = []
    for pair in pairs:
        first, second = (score(pair.question, one) for one in (pair.chosen_by, pair.rejected_by))
        won.append(0.5 if first == second else float(first > second))
    return won


def fold_of(question: str) -> int:
    """Which of the five folds a question belongs to, by its text or key alone."""
    return zlib.crc32(question.encode()) % FOLDS


def _direction(pair: SourcedPair) -> tuple[str, str]:
    return pair.chosen_by, pair.rejected_by
