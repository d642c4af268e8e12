"""Pairs of solutions balanced by source, so that the source does not predict the correct one."""

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FOLDS = 5


class SourcedPair(NamedTuple):
    """A correct and an incorrect solution of a question, and their sources."""

    question: str
    chosen: str
    rejected: str
    chosen_by: str
    rejected_by: str


def balanced(
    pairs: Mapping[str, Sequence[SourcedPair]], max_pairs: int, rng: random.Random
) -> list[SourcedPair]:
    """At most ``max_pairs`` pairs per question. For any two sources A and B, as many of all kept
    pairs prefer A's solution as B's.

    Pairs within one source are taken first, then pairs of the rarest direction (A over B or B over
    A). Surplus pairs of a direction are dropped at random.

    Args:
        max_pairs: per question.
        rng: breaks ties and draws the surplus.
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
    """Pairwise accuracy of a predictor that only sees the sources; a tie counts one half. NaN
    without pairs.

    Args:
        pairs: to be predicted.
        solutions: question, source and label of each solution. A source's score is its accuracy
            on the other folds' questions (five folds), one half where it has none.
    """
    won = _told_apart(pairs, solutions)
    return sum(won) / len(won) if won else float("nan")


def pairs_told_apart(pairs: Sequence[SourcedPair]) -> list[float]:
    """Whether the sources alone predict the chosen response of each pair: 1, 0, or 0.5 for a tie.

    A source's score is its win rate in pairs against other sources, on questions of other folds.
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
    """The number of the fold (of five) that a question belongs to, from its text or key alone."""
    return zlib.crc32(question.encode()) % FOLDS


def _direction(pair: SourcedPair) -> tuple[str, str]:
    return pair.chosen_by, pair.rejected_by
