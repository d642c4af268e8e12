"""Calibration of probabilities. Every function takes plain sequences; labels are 0 or 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from rewardsteer.errors import DataError


def expected_calibration_error(
    probabilities: Sequence[float], labels: Sequence[int], bins: int = 10
) -> float:
    """Mean distance between mean probability and share of label 1 in equal-width bins, weighted by
    the bins' counts.

    NaN without any value.

    Raises:
        DataError: see `reliability_bins`.
    """
    filled = [bin for bin in reliability_bins(probabilities, labels, bins) if bin["count"]]
    if not filled:
        return float("nan")
    distances = [abs(bin["mean_probability"] - bin["share"]) for bin in filled]
    return float(np.average(distances, weights=[bin["count"] for bin in filled]))


def brier(probabilities: Sequence[float], labels: Sequence[int]) -> float:
    """Mean squared distance of probability and label; NaN without any value.

    Raises:
        DataError: see `reliability_bins`.
    """
    values, outcomes = _checked(probabilities, labels)
    return float(((values - outcomes) ** 2).mean()) if len(values) else float("nan")


def reliability_bins(
    probabilities: Sequence[float], labels: Sequence[int], bins: int = 10
) -> list[dict[str, float]]:
    """Equal-width bins of [0, 1], for a reliability plot.

    Args:
        probabilities: of label 1.
        labels: the outcomes.
        bins: number of bins; each includes its lower edge, the last one also 1.

    Returns:
        ``low``, ``high``, ``count`` of each bin; for bins with values also ``mean_probability``
        and ``share`` (of label 1).

    Raises:
        DataError: lengths that differ, or a probability outside [0, 1].
    """
    values, outcomes = _checked(probabilities, labels)
    # scikit-learn's calibration_curve leaves empty bins out and gives no counts.
    place = np.minimum((values * bins).astype(int), bins - 1)
    figures: list[dict[str, float]] = []
    for number in range(bins):
        inside = place == number
        figure = {
            "low": number / bins, "high": (number + 1) / bins, "count": int(inside.sum()),
        }
        if figure["count"]:
            figure["mean_probability"] = float(values[inside].mean())
            figure["share"] = float(outcomes[inside].mean())
        figures.append(figure)
    return figures


def pair_calibration(margins: Sequence[float] | np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Calibration of a reward model on pairs: sigmoid(reward difference) against the outcome.

    Args:
        margins: reward of the chosen response less that of the rejected one; at least one pair.
        seed: of the draw of the order in a pair. With the chosen response always first every label
            would be 1, so every bin's share too, and no model could be calibrated.

    Returns:
        ``expected_calibration_error``, ``brier``, ``negative_log_likelihood`` and ``bins``.
    """
    differences = np.asarray(margins, dtype=float)
    chosen_first = np.random.default_rng(seed).random(len(differences)) < 0.5
    probabilities = expit(np.where(chosen_first, differences, -differences)).tolist()
    labels = chosen_first.astype(int).tolist()
    return {
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "brier": brier(probabilities, labels),
        # −log sigmoid(difference) without overflow; the order of a pair does not change it.
        "negative_log_likelihood": float(np.logaddexp(0.0, -differences).mean()),
        "bins": reliability_bins(probabilities, labels),
    }


def _checked(
    probabilities: Sequence[float], labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    values, outcomes = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    if len(values) != len(outcomes):
        raise DataError(
            f"Expected one label for each probability, got {len(values)} probabilities and "
            f"{len(outcomes)} labels."
        )
    wrong = values[~((values >= 0) & (values <= 1))]
    if len(wrong):
        raise DataError(f"Expected probabilities between 0 and 1, got {wrong[0]}.")
    return values, outcomes
