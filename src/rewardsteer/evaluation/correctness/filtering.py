"""Dropping solutions during generation: tokens saved, and the change in the vote's accuracy.

A solution is dropped at the first token, after the first ``start`` ones, whose value lies below the
threshold; the tokens after it need not be generated. Where every solution of a question would be
dropped, all are kept and nothing is saved (as published; a vote needs a solution).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from rewardsteer.decoding.strategies.early_rejection import crossings
from rewardsteer.evaluation.correctness.config import CorrectnessConfig, Signal
from rewardsteer.evaluation.correctness.scored import Question, token_values
from rewardsteer.evaluation.statistics import paired_difference
from rewardsteer.evaluation.voting import vote


@dataclass(frozen=True)
class Filtered:
    """Results of each threshold on each question; Q questions, K thresholds, float64.

    Attributes:
        accuracy: ``[Q, K]`` of the vote among the solutions kept.
        before: ``[Q]`` accuracy of the plain vote.
        dropped: ``[Q, K]`` solutions dropped.
        generated: ``[Q, K]`` tokens generated.
        read: ``[Q, K]`` tokens of the reward model's forward passes, each prompt once per solution.
        kept_correct: ``[Q, K]`` share of correct solutions among those kept.
        fallback: ``[Q, K]`` bool, every solution would have been dropped.
        solutions: ``[Q]`` and
        tokens: ``[Q]`` of the plain vote.
    """

    accuracy: np.ndarray
    before: np.ndarray
    dropped: np.ndarray
    generated: np.ndarray
    read: np.ndarray
    kept_correct: np.ndarray
    fallback: np.ndarray
    solutions: np.ndarray
    tokens: np.ndarray


def filter_questions(
    questions: Sequence[Question], thresholds: Sequence[float], signal: Signal, start: int
) -> Filtered:
    """Apply every threshold to every question; solutions without a score are always kept."""
    levels = np.asarray(thresholds, dtype=float)
    shape = (len(questions), len(levels))
    table = Filtered(
        accuracy=np.zeros(shape), before=np.zeros(shape[0]), dropped=np.zeros(shape),
        generated=np.zeros(shape), read=np.zeros(shape), kept_correct=np.zeros(shape),
        fallback=np.zeros(shape, dtype=bool), solutions=np.zeros(shape[0]),
        tokens=np.zeros(shape[0]),
    )
    for row, question in enumerate(questions):
        _filter(question, levels, signal, start, table, row)
    return table


def _filter(
    question: Question, levels: np.ndarray, signal: Signal, start: int, table: Filtered, row: int
) -> None:
    lengths = np.array(question.tokens)
    prompts = np.array([
        one.prompt_tokens if one.reward is not None else 0 for one in question.solutions
    ])
    first = np.array([
        crossings(token_values(one, signal), levels, start) if one.reward is not None
        else np.full(len(levels), one.token_count)
        for one in question.solutions
    ])  # [N, K]
    kept = first >= lengths[:, None]
    fallback = ~kept.any(axis=0)
    kept = kept | fallback
    # The token below the threshold was generated and scored too. The fallback needs all tokens.
    written = np.where(kept, lengths[:, None], first + 1)
    correct, answers = np.array(question.correct), question.answers
    before = vote(answers, question.correct)
    table.before[row], table.tokens[row] = before, lengths.sum()
    table.solutions[row] = len(lengths)
    table.fallback[row], table.dropped[row] = fallback, (~kept).sum(0)
    table.generated[row] = written.sum(0)
    table.read[row] = (written + prompts[:, None]).sum(0)
    known: dict[bytes, tuple[float, float]] = {}
    for column in range(len(levels)):
        mask = kept[:, column]
        if mask.tobytes() not in known:
            rows = np.flatnonzero(mask)
            share = vote([answers[i] for i in rows], [bool(correct[i]) for i in rows])
            known[mask.tobytes()] = (share, float(correct[rows].mean()))
        table.accuracy[row, column], table.kept_correct[row, column] = known[mask.tobytes()]


def summarise(table: Filtered, column: int, threshold: float, cost: float) -> dict[str, Any]:
    """Figures of one threshold; shares are of the plain vote's solutions or tokens.

    ``tokens_saved_net`` subtracts the tokens that the reward model scored, at ``cost`` per token.
    """
    gain = paired_difference(table.accuracy[:, column].tolist(), table.before.tolist())
    total = float(table.tokens.sum())
    saved = 1 - table.generated[:, column].sum() / total if total else 0.0
    read = table.read[:, column].sum() / total if total else 0.0
    figures = {
        "threshold": threshold,
        "questions": len(table.before),
        "filtered": float(table.dropped[:, column].sum() / table.solutions.sum()),
        "tokens_saved": float(saved),
        "reward_model_tokens": float(read),
        "tokens_saved_net": float(saved - cost * read),
        "accuracy_before": float(table.before.mean()),
        "accuracy": float(table.accuracy[:, column].mean()),
        **gain.figures("gain"),
        "kept_correct": float(table.kept_correct[:, column].mean()),
        "all_filtered": int(table.fallback[:, column].sum()),
        "tokens_per_question": float(table.generated[:, column].mean()),
    }
    return {name: value for name, value in figures.items() if value == value}


def threshold_grid(
    questions: Sequence[Question], signal: Signal, config: CorrectnessConfig
) -> list[float]:
    """Thresholds to try: quantiles of the lowest value of every solution, ascending."""
    if config.thresholds is not None:
        return sorted(config.thresholds)
    lowest = [
        float(values.min()) for question in questions for one in question.solutions
        if one.reward is not None
        and len(values := token_values(one, signal)[config.start:])
    ]
    if not lowest:
        return [0.0]
    grid = set(np.quantile(lowest, np.linspace(0, 1, 41)).tolist())
    return sorted(grid | {0.0}) if signal == "similarity" else sorted(grid)


def choose_free(table: Filtered) -> int | None:
    """Column of the threshold that saves most among those whose vote is no worse than the plain
    one; None: none saves tokens without loss."""
    gains = (table.accuracy - table.before[:, None]).mean(0)
    saved = table.tokens.sum() - table.generated.sum(0)
    # 1e-12 allows for the rounding of shares.
    allowed = np.flatnonzero((gains >= -1e-12) & (saved > 0))
    return int(allowed[saved[allowed].argmax()]) if len(allowed) else None


def choose_best(table: Filtered) -> int:
    """Column of the threshold with the best vote; of equals the one that saves most."""
    return max(
        range(table.accuracy.shape[1]),
        key=lambda column: (table.accuracy[:, column].mean(), -table.generated[:, column].sum()),
    )


def questions_needed(loss: float, confidence: float) -> int:
    """The fewest validation questions with which `choose_by_risk` can accept a threshold: even
    without a single loss, (1 - loss)^n must be at most 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - loss))


def choose_by_risk(table: Filtered, loss: float, confidence: float) -> int | None:
    """The threshold that saves most among those shown to make at most a share ``loss`` of votes
    worse.

    Thresholds are tested in ascending order, each against the hypothesis that more than ``loss`` of
    the questions lose. The p-value is exact: the probability of so few losses under a binomial with
    that share. The first hypothesis that is not rejected at 1 − ``confidence`` ends the search, so
    the guarantee holds for all thresholds before it together (fixed-sequence testing, as in Learn
    then Test, arXiv 2110.01052). A question whose vote gets worse in any degree counts as lost.
    Gains are not counted against losses, so accuracy drops by at most ``loss``.

    Args:
        table: of validation questions; columns by ascending threshold.
        loss: e, a share of questions.
        confidence: 1 − d.

    Returns:
        the column, or None when not even the smallest threshold passes.
    """
    # 1e-12 allows for the rounding of shares.
    lost = (table.accuracy < table.before[:, None] - 1e-12).sum(0)
    p_values = binom.cdf(lost, len(table.before), loss)
    failed = np.flatnonzero(p_values > 1 - confidence)
    passed = int(failed[0]) if len(failed) else len(p_values)
    # Not simply the highest: where a high threshold drops all solutions, all are kept.
    return int(table.generated[:, :passed].sum(0).argmin()) if passed else None
