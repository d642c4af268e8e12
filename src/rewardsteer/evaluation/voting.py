"""Figures of n sampled solutions of one question: votes, pass@k and best-of-k.

The solutions are parallel sequences: ``answers`` holds canonical strings, or None where no answer
was found; ``correct`` holds their labels; ``rewards`` may hold NaN for a solution not scored.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np


def vote(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    weights: Sequence[float] | None = None,
) -> float:
    """Accuracy of the majority or weighted vote, in [0, 1]; 0 without any answer.

    Ties between top answers are split evenly, which is the expected accuracy of drawing one of
    them. An answer's accuracy is the share of its solutions labelled correct. When all weights are
    0, all answers tie.

    Args:
        answers: one per solution; a solution with None does not vote.
        correct: whether each solution is labelled correct.
        weights: of the votes; None: each counts one. See ``reward_weights``.

    Raises:
        ValueError: the lengths differ, or a weight is negative or not finite.
    """
    given = [1.0] * len(answers) if weights is None else [float(weight) for weight in weights]
    check_lengths(len(answers), len(correct), len(given))
    _check_weights(given)
    ballots: defaultdict[str, list[float]] = defaultdict(list)
    labels: defaultdict[str, list[bool]] = defaultdict(list)
    for answer, label, weight in zip(answers, correct, given, strict=True):
        if answer is not None:
            ballots[answer].append(weight)
            labels[answer].append(label)
    if not ballots:
        return 0.0
    # Only ratios matter, and sums of huge weights would overflow.
    largest = max(max(cast) for cast in ballots.values()) or 1.0
    totals = {a: math.fsum(weight / largest for weight in cast) for a, cast in ballots.items()}
    top = max(totals.values())
    # Sums that differ by rounding alone (0.1 + 0.2 and 0.3) are a tie.
    winners = [a for a, total in totals.items() if math.isclose(total, top, rel_tol=1e-9)]
    return math.fsum(sum(labels[a]) / len(labels[a]) for a in winners) / len(winners)


def reward_weights(rewards: Sequence[float]) -> list[float]:
    """Weights of a vote from rewards; a solution that was not scored (NaN) has weight 0."""
    return [0.0 if math.isnan(reward) else float(reward) for reward in rewards]


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """Probability that k of the n solutions, drawn without replacement, include a correct one.

    This is the unbiased estimate 1 − C(n − c, k)/C(n, k).

    Raises:
        ValueError: k is not between 1 and n.
    """
    n = len(correct)
    _check_k(k, n)
    subsets, missed = math.comb(n, k), math.comb(n - int(sum(correct)), k)
    # Integers are subtracted before the division, so that small probabilities stay exact.
    return (subsets - missed) / subsets


def best_of_k(rewards: Sequence[float], correct: Sequence[bool], k: int) -> float:
    """Expected accuracy, over all k-subsets, of the solution with the highest reward.

    Ties in reward are split evenly. NaN ranks below every number, so a solution without a score is
    chosen, uniformly, only from a subset without scores.

    Args:
        rewards: one per solution; NaN where it was not scored.
        correct: whether each solution is labelled correct.
        k: size of the subsets.

    Raises:
        ValueError: the lengths differ, or k is not between 1 and n.
    """
    n = len(rewards)
    check_lengths(n, len(correct))
    _check_k(k, n)
    levels: defaultdict[float | None, list[bool]] = defaultdict(list)
    for reward, label in zip(rewards, correct, strict=True):
        # None stands for NaN, which does not equal itself and cannot be a key.
        levels[None if math.isnan(reward) else float(reward)].append(label)
    ranked = sorted(levels.items(), key=lambda level: (level[0] is not None, level[0] or 0.0))
    subsets, below, parts = math.comb(n, k), 0, []
    for _, labels in ranked:
        # Count the subsets whose highest reward is this level: none above it, not all below it.
        # Ties are symmetric, so the accuracy of the level is the mean of its labels.
        upto = below + len(labels)
        won = math.comb(upto, k) - math.comb(below, k)
        parts.append(won * int(sum(labels)) / (subsets * len(labels)))
        below = upto
    return math.fsum(parts)


def vote_at_k(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    k: int,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    weights: Sequence[float] | None = None,
) -> float:
    """Mean accuracy of ``vote`` over k-subsets of the solutions.

    Args:
        answers: one per solution; None never votes.
        correct: whether each solution is labelled correct.
        k: size of the subsets.
        rng: draws the subsets; left untouched when all of them are enumerated.
        draws: subsets drawn; when there are no more than this, each is taken once.
        weights: of the votes; each counts one without them.

    Raises:
        ValueError: the lengths differ, k is not between 1 and n, draws is below one, or a weight
            is negative or not finite.
    """
    n = len(answers)
    check_lengths(n, len(correct), n if weights is None else len(weights))
    _check_k(k, n)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")

    if weights is not None:
        _check_weights(weights)
    if math.comb(n, k) <= draws:
        subsets = np.array(list(combinations(range(n), k)))
    else:
        subsets = rng.permuted(np.tile(np.arange(n), (draws, 1)), axis=1)[:, :k]
    return float(_votes(subsets, answers, correct, weights).mean())


def _votes(
    subsets: np.ndarray, answers: Sequence[str | None], correct: Sequence[bool],
    weights: Sequence[float] | None,
) -> np.ndarray:
    """``vote`` of every subset ``[S]``, computed at once; ``subsets``: indices ``[S, k]``."""
    known = sorted({answer for answer in answers if answer is not None})
    if not known:
        return np.zeros(len(subsets))
    place = {answer: index for index, answer in enumerate(known)}
    # Solutions without an answer vote for a last column, which is cut off.
    codes = np.array([place[answer] if answer is not None else len(known) for answer in answers])
    cells = codes[subsets] + (len(known) + 1) * np.arange(len(subsets))[:, None]

    def totals(values: np.ndarray) -> np.ndarray:
        summed = np.bincount(
            cells.ravel(), values[subsets].ravel(), len(subsets) * (len(known) + 1)
        )
        return summed.reshape(len(subsets), -1)[:, :-1]

    ballots = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype=float)
    cast = totals(ballots / (ballots.max() or 1.0))
    voters, right = totals(np.ones(len(codes))), totals(np.asarray(correct, dtype=float))
    top = cast.max(axis=1, keepdims=True)
    winners = (voters > 0) & (cast >= top * (1 - 1e-9))
    shares = np.divide(right, voters, out=np.zeros_like(right), where=voters > 0)
    found: np.ndarray = (shares * winners).sum(1) / np.maximum(winners.sum(1), 1)
    return found


def _check_weights(weights: Sequence[float]) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("weights must be finite and not negative")


def check_lengths(*lengths: int) -> None:
    """Raise `ValueError` where the lengths differ."""
    if len(set(lengths)) > 1:
        raise ValueError(f"the solutions' sequences differ in length: {lengths}")


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and {n}, the number of solutions, not {k}")
