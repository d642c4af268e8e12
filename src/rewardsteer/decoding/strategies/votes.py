"""Majority votes over final answers, and when more samples are unlikely to change one."""

from collections import Counter
from collections.abc import Mapping, Sequence

from scipy.special import betainc

from rewardsteer.answers import canonical_answer, extract_answer
from rewardsteer.decoding.config import DecodingConfig


def final_answer(text: str) -> str | None:
    """What a response votes for; None where it has no final answer."""
    return canonical_answer(extract_answer(text))


def window_agrees(answers: Sequence[str | None]) -> bool:
    """Whether all answers of a window are the same one: early-stopping self-consistency (ESC, ICLR
    2024) stops there. None, where no answer was found, agrees with nothing."""
    return len(set(answers)) == 1 and None not in answers


def majority_stands(votes: Mapping[str, int], confidence: float) -> bool:
    """Whether the majority is unlikely to change: Adaptive-Consistency (EMNLP 2023).

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


class Vote:
    """A vote over the samples of a prompt, and the samples that it still needs.

    Samples are drawn in rounds, after which the decision is checked: all samples at once, the rest
    of a window (ESC), or one sample (adaptive consistency). Samples without a vote do not count in
    a window.

    Args:
        config: ``n``, ``vote_stop``, ``vote_window`` and ``vote_confidence`` are used.

    Attributes:
        answers: by sample, its final answer; None where it has none.
    """

    def __init__(self, config: DecodingConfig) -> None:
        self._config, self._begun = config, 0
        self.answers: dict[int, str | None] = {}

    def next_round(self) -> range:
        """Numbers of the samples to draw now; empty once the vote is decided, or all are drawn."""
        config, left = self._config, self._config.n - self._begun
        count = 0 if self._decided() else {
            "none": left, "adaptive": 1,
            "esc": config.vote_window - len(self.answers) % config.vote_window,
        }[config.vote_stop]
        round_ = range(self._begun, self._begun + min(count, left))
        self._begun = round_.stop
        return round_

    def count(self, sample: int, answer: str | None) -> None:
        self.answers[sample] = answer

    def winner(self) -> int:
        """The first sample with the majority's answer."""
        kept = sorted(self.answers)
        return kept[winner([self.answers[sample] for sample in kept])]

    def _decided(self) -> bool:
        config = self._config
        answers = [self.answers[sample] for sample in sorted(self.answers)]
        if config.vote_stop == "esc":
            full = answers and len(answers) % config.vote_window == 0
            return bool(full) and window_agrees(answers[-config.vote_window :])
        if config.vote_stop == "adaptive":
            votes = Counter(answer for answer in answers if answer is not None)
            return bool(votes) and majority_stands(votes, config.vote_confidence)
        return False
