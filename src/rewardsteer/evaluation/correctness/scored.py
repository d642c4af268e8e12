"""Scored solutions by benchmark and question."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewardsteer.errors import DataError
from rewardsteer.evaluation.correctness.config import Signal
from rewardsteer.records import Solution


@dataclass(frozen=True)
class Question:
    """All labelled solutions of one question, in the order of their sample names."""

    key: str
    solutions: Sequence[Solution]

    @property
    def answers(self) -> list[str | None]:
        """Final answers; None where none was found."""
        return [solution.predicted_answer for solution in self.solutions]

    @property
    def correct(self) -> list[bool]:
        return [bool(solution.is_correct) for solution in self.solutions]

    @property
    def rewards(self) -> list[float]:
        """Rewards of complete solutions; NaN where there is none."""
        return [
            float("nan") if one.reward is None else one.reward for one in self.solutions
        ]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each solution; 0 where it was not scored."""
        return [solution.token_count for solution in self.solutions]


@dataclass(frozen=True)
class Benchmark:
    """One set of questions.

    Attributes:
        questions: sorted by key.
        unlabelled: number of solutions without ``is_correct``, left out.
        skipped: number of solutions that the reward model could not score; they vote.
        extracted: number of solutions without ``predicted_answer``; it was found in their text.
        repeated: number of repeated rows, left out.
        same_text: number of questions whose text another question has under another key.
    """

    name: str
    questions: Sequence[Question]
    unlabelled: int
    skipped: int
    extracted: int = 0
    repeated: int = 0
    same_text: int = 0

    @property
    def solutions(self) -> list[Solution]:
        """All solutions, question by question."""
        return [one for question in self.questions for one in question.solutions]

    @property
    def scored(self) -> list[Solution]:
        """All solutions with a reward."""
        return [solution for solution in self.solutions if solution.reward is not None]

    def split(self, share: float, seed: int) -> tuple[list[Question], list[Question]]:
        """Validation and test questions; a question's part depends on seed and key alone."""
        chosen: tuple[list[Question], list[Question]] = ([], [])
        for question in self.questions:
            place = zlib.crc32(f"{seed}/{question.key}".encode()) / 2**32
            chosen[place >= share].append(question)
        return chosen


def token_values(solution: Solution, signal: Signal) -> np.ndarray:
    """The signal at every token of a scored solution, ``[T]``.

    Raises:
        DataError: the solution was scored without this signal.
    """
    values = (
        solution.token_rewards if signal == "reward" else solution.token_similarities
    )
    if values is None:
        missing = (
            "per-token rewards; score again with tokens=True (--tokens)" if signal == "reward" else
            "similarities to a goal; make one with 'rewardsteer goal-state' and score again"
        )
        raise DataError(f"The scored solutions of {solution.benchmark!r} hold no {missing}.")
    return np.asarray(values)


def signals(benchmark: Benchmark) -> list[Signal]:
    """The per-token signals that all scored solutions have."""
    scored = benchmark.scored
    found: list[Signal] = []
    if scored and all(one.token_rewards is not None for one in scored):
        found.append("reward")
    if scored and all(one.token_similarities is not None for one in scored):
        found.append("similarity")
    return found
