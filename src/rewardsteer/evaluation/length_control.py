"""Win rates at equal lengths of both responses.

The logistic regression of length-controlled AlpacaEval (arXiv 2404.04475), without its term for the
difficulty of an instruction, which takes many models to fit:

    P(win) = σ(θ + φ · tanh(Δ / std(Δ))),    Δ = length of the response − length of the baseline's

fitted to outcomes 1, ½ and 0 by the cross-entropy; the controlled rate is σ(θ), where Δ is 0.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from rewardsteer.errors import DataError
from rewardsteer.evaluation.statistics import FEWEST, Interval, share, student_quantile

RIDGE = 0.01  # ½ · RIDGE · (θ² + φ²): keeps the fit finite where one side wins every pair
_STEPS = 100


def length_controlled(
    outcomes: Sequence[float], lengths: Sequence[float], baseline: Sequence[float]
) -> Interval:
    """The win rate at equal lengths, with a 95 % interval by the robust (sandwich) error of θ.

    Where all outcomes are the same, it is their value with a Wilson interval. NaN for fewer than
    ten pairs.

    Args:
        outcomes: 1 for a win, ½ for a tie, 0 for a loss; one per prompt.
        lengths: of the method's responses, in characters.
        baseline: of the baseline's responses, in characters.

    Raises:
        DataError: the numbers of the three differ.
    """
    if not len(outcomes) == len(lengths) == len(baseline):
        raise DataError(
            f"Expected one length of each response per outcome, got {len(lengths)} and "
            f"{len(baseline)} for {len(outcomes)}."
        )
    wins = np.asarray(outcomes, dtype=float)
    if len(wins) < FEWEST:
        return Interval(float("nan"), float("nan"), float("nan"))
    if np.ptp(wins) == 0:
        return share(wins.tolist())
    design = np.stack([np.ones(len(wins)), _relative(lengths, baseline)], axis=1)
    weights = _fit(design, wins)
    chances = expit(design @ weights)
    hessian = _hessian(design, chances)
    scores = design * (wins - chances)[:, None]
    meat = scores.T @ scores * len(wins) / (len(wins) - 1)
    inverse = np.linalg.inv(hessian)
    error = float(np.sqrt((inverse @ meat @ inverse)[0, 0]))
    half = student_quantile(0.975, len(wins) - 1) * error
    middle = float(weights[0])
    return Interval(*(float(expit(middle + by)) for by in (0.0, -half, half)))


def _relative(lengths: Sequence[float], baseline: Sequence[float]) -> np.ndarray:
    """tanh(Δ / std(Δ)) of the differences in length Δ; 0 where all Δ are equal."""
    difference = np.asarray(lengths, dtype=float) - np.asarray(baseline, dtype=float)
    spread = float(difference.std())
    return np.tanh(difference / spread) if spread > 0 else np.zeros(len(difference))


def _fit(design: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """θ and φ ``[2]`` by Newton's method, halving steps that do not lower the loss."""
    weights = np.zeros(2)
    loss = _loss(design, wins, weights)
    for _ in range(_STEPS):
        chances = expit(design @ weights)
        gradient = design.T @ (chances - wins) + RIDGE * weights
        step = np.linalg.solve(_hessian(design, chances), gradient)
        size = 1.0
        while (after := _loss(design, wins, weights - size * step)) > loss and size > 1e-9:
            size /= 2
        weights = weights - size * step
        if abs(loss - after) < 1e-12:
            break
        loss = after
    return weights


def _hessian(design: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Second derivatives of the loss ``[2, 2]``."""
    curved: np.ndarray = (design * (chances * (1 - chances))[:, None]).T @ design
    return curved + RIDGE * np.eye(2)


def _loss(design: np.ndarray, wins: np.ndarray, weights: np.ndarray) -> float:
    """Cross-entropy of the outcomes, with the ridge."""
    logits = design @ weights
    return float(
        np.sum(np.logaddexp(0, logits) - wins * logits) + RIDGE / 2 * np.sum(weights**2)
    )
