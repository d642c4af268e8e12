"""Majority votes over final answers, and when more samples are unlikely to change one."""

from collections import Counter
from collections.abc import Mapping, Sequence

from scipy.special import betainc


def window_agrees(answers: Sequence[str | None]) -> bool:
    """Whether all answers of a window are the same one: early-stopping self-consistency (ESC, ICLR
    2024) stops there. None, where no answer was found, agrees with nothing."""
    return len(set(answers)) == 1 and None not in answers


def majority_stands(votes: Mapping[str, int], confidence: float) -> bool:
    """Whether the most frequent answer is ahead for good: Adaptive-Consistency (EMNLP 2023).

    With v1 and v2 votes for the two most frequent answers, the share of the first among the two has
    the posterior Beta(v1 + 1, v2 + 1); it must exceed one half with at least this probability. A
    confidence of 1 is never reached.
    """
    first, second = ([count for _, count in Counter(votes).most_common(2)] + [0, 0])[:2]
    # Rounding would reach certainty after some fifty agreeing votes.
    return confidence < 1 and bool(1 - betainc(first + 1, second + 1, 0.5) >= confidence)


def winner(answers: Sequence[str | None]) -> int:
    """The first sample with the most frequent answer; among equally frequent ones the answer that
    came first, and the first sample where nobody answered."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0
    # most_common() keeps the order of first appearance among equals.
    return list(answers).index(votes.most_common(1)[0][0])
