"""Self-consistency that stops early, replayed on the stored samples of one question.

A rule takes the answers in the order given and returns after how many samples it stops; the vote is
over everything taken. A sample without an answer (None) costs tokens but never votes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rewardsteer.decoding.strategies.votes import majority_stands, window_agrees
from rewardsteer.evaluation.voting import check_lengths, vote

Rule = Callable[[Sequence[str | None]], int]


class Stopped(NamedTuple):
    """Where a rule stopped: the accuracy of its vote, and what it cost."""

    accuracy: float
    samples: int
    tokens: int


def early_stopping(answers: Sequence[str | None], window: int) -> int:
    """Early-stopping self-consistency (ESC, ICLR 2024).

    Samples are taken in windows that do not overlap, until all answers of one window are the
    same. A shorter window at the end is taken as well.

    Raises:
        ValueError: the window is below one.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    for end in range(window, len(answers) + 1, window):
        if window_agrees(answers[end - window : end]):
            return end
    return len(answers)


def adaptive_consistency(answers: Sequence[str | None], threshold: float = 0.95) -> int:
    """Adaptive-Consistency (EMNLP 2023): stop once the majority is unlikely to change.

    See `rewardsteer.decoding.strategies.votes.majority_stands`.

    Args:
        answers: in the order taken.
        threshold: from 0.5 (stop at the first answer) to 1 (take all samples).

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0.5 and 1, not {threshold}")
    votes: Counter[str] = Counter()
    for taken, answer in enumerate(answers, start=1):
        if answer is None:
            continue  # No vote has changed, so neither has the decision to go on.
        votes[answer] += 1
        if majority_stands(votes, threshold):
            return taken
    return len(answers)


def stop(
    rule: Rule, answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int]
) -> Stopped:
    """Apply a rule to samples.

    Args:
        rule: when to stop.
        answers: in the order taken; None where no answer was found.
        correct: whether each sample is labelled correct.
        tokens: generated for each sample.

    Raises:
        ValueError: the lengths differ.
    """
    check_lengths(len(answers), len(correct), len(tokens))
    taken = rule(answers)
    return Stopped(vote(answers[:taken], correct[:taken]), taken, int(sum(tokens[:taken])))


def over_orders(
    rule: Rule, answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int], *,
    orders: int, rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Mean accuracy, samples and tokens of a rule over random orders of the samples.

    Args:
        rule, answers, correct, tokens: see `stop`.
        orders: number of random orders.
        rng: draws the orders; with the same state two rules get the same orders.

    Raises:
        ValueError: the lengths differ, or orders is below one.
    """
    if orders < 1:
        raise ValueError(f"orders must be at least 1, not {orders}")
    check_lengths(len(answers), len(correct), len(tokens))
    ends = []
    for _ in range(orders):
        rows = rng.permutation(len(answers)).tolist()
        shuffled = [[column[row] for row in rows] for column in (answers, correct, tokens)]
        ends.append(stop(rule, *shuffled))
    accuracy, samples, cost = np.mean(ends, axis=0).tolist()
    return accuracy, samples, cost
