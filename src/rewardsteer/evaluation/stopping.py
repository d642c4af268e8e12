"""Self-consistency that stops early, replayed on the stored samples of one question.

Each rule takes the samples in the order given, stops when it is sure enough, and votes over
everything it has taken. A sample without an answer (None) costs tokens but never votes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rewardsteer.decoding.strategies.votes import majority_stands, window_agrees
from rewardsteer.evaluation.voting import vote


@dataclass(frozen=True)
class Stopped:
    """Where a rule stopped: the accuracy of its vote, and what it cost."""

    accuracy: float
    samples: int
    tokens: int


Rule = Callable[[Sequence[str | None], Sequence[bool], Sequence[int]], Stopped]


def plain_vote(
    answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int], k: int
) -> Stopped:
    """Majority vote of the first k samples.

    Args:
        answers: in the order taken; None where no answer was found.
        correct: whether each sample is labelled correct.
        tokens: generated for each sample.
        k: samples taken.

    Raises:
        ValueError: the lengths differ, or k is not between 1 and their number.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k must be between 1 and {len(answers)}, not {k}")
    return _stop_after(k, answers, correct, tokens)


def early_stopping(
    answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int], window: int
) -> Stopped:
    """Early-stopping self-consistency (ESC, ICLR 2024).

    Samples are taken in windows that do not overlap, until all answers of one window are the
    same. What is left at the end, shorter than a window, is taken as well.

    Args:
        answers: in the order taken; None where no answer was found, which agrees with nothing.
        correct: whether each sample is labelled correct.
        tokens: generated for each sample.
        window: samples taken at a time.

    Raises:
        ValueError: the lengths differ, or the window is below one.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    for end in range(window, len(answers) + 1, window):
        if window_agrees(answers[end - window : end]):
            return _stop_after(end, answers, correct, tokens)
    return _stop_after(len(answers), answers, correct, tokens)


def adaptive_consistency(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    tokens: Sequence[int],
    threshold: float = 0.95,
) -> Stopped:
    """Adaptive-Consistency (EMNLP 2023): stop once the majority is unlikely to change.

    See `rewardsteer.decoding.strategies.votes.majority_stands`. A threshold of 1 takes all samples.

    Args:
        answers: in the order taken; None where no answer was found.
        correct: whether each sample is labelled correct.
        tokens: generated for each sample.
        threshold: between 0.5 (stop at the first answer) and 1.

    Raises:
        ValueError: the lengths differ, or the threshold is out of range.
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0.5 and 1, not {threshold}")
    votes: Counter[str] = Counter()
    for taken, answer in enumerate(answers, start=1):
        if answer is None:
            continue  # No vote has changed, so neither has the decision to go on.
        votes[answer] += 1
        if majority_stands(votes, threshold):
            return _stop_after(taken, answers, correct, tokens)
    return _stop_after(len(answers), answers, correct, tokens)


def over_orders(
    rule: Rule,
    answers: Sequence[str | None],
    correct: Sequence[bool],
    tokens: Sequence[int],
    *,
    orders: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Mean accuracy, samples and tokens of a rule over random orders of the samples.

    Args:
        rule: takes answers, labels and tokens; bind its other arguments beforehand.
        answers: None where no answer was found.
        correct: whether each sample is labelled correct.
        tokens: generated for each sample.
        orders: how many are drawn.
        rng: draws the orders; the same state gives two rules the same orders.

    Raises:
        ValueError: the lengths differ, orders is below one, or the rule refuses its input.
    """
    if orders < 1:
        raise ValueError(f"orders must be at least 1, not {orders}")
    _check_lengths(answers, correct, tokens)
    ends = []
    for _ in range(orders):
        rows = rng.permutation(len(answers)).tolist()
        end = rule([answers[i] for i in rows], [correct[i] for i in rows],
                   [tokens[i] for i in rows])
        ends.append((end.accuracy, end.samples, end.tokens))
    accuracy, samples, cost = np.mean(ends, axis=0).tolist()
    return accuracy, samples, cost


def _stop_after(
    taken: int, answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int]
) -> Stopped:
    # Before slicing, which would hide that one of them is longer.
    _check_lengths(answers, correct, tokens)
    return Stopped(vote(answers[:taken], correct[:taken]), taken, int(sum(tokens[:taken])))


def _check_lengths(
    answers: Sequence[str | None], correct: Sequence[bool], tokens: Sequence[int]
) -> None:
    if not len(answers) == len(correct) == len(tokens):
        lengths = (len(answers), len(correct), len(tokens))
        raise ValueError(f"the samples' sequences differ in length: {lengths}")
