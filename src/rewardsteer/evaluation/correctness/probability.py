"""Calibration of values to P(correct | prefix), fitted on validation questions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.evaluation.calibration import brier, expected_calibration_error, reliability_bins
from rewardsteer.evaluation.correctness.config import CorrectnessConfig, Signal
from rewardsteer.evaluation.correctness.ranking import prefix_values
from rewardsteer.evaluation.correctness.scored import Question
from rewardsteer.records import Solution

_SHARES = (0.25, 0.5, 0.75, 1.0)


def calibrate(
    validation: Sequence[Question], test: Sequence[Question], signal: Signal,
    config: CorrectnessConfig,
) -> list[dict[str, Any]]:
    """Isotonic calibration at each quarter of a solution; one record per position.

    Every position has its own map, since a value is less informative early on. Figures are of the
    test questions; ``brier_constant`` is that of predicting the validation share for all.
    """
    from sklearn.isotonic import IsotonicRegression

    seen, unseen = _scored(validation), _scored(test)
    if not seen or not unseen:
        return []
    labels = [float(bool(one.is_correct)) for one in seen]
    outcomes = [int(bool(one.is_correct)) for one in unseen]
    figures = []
    for share in _SHARES:
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(prefix_values(seen, signal, share), labels)
        found = np.clip(model.predict(prefix_values(unseen, signal, share)), 0, 1).tolist()
        figures.append({
            "percentile": share,
            "expected_calibration_error": expected_calibration_error(found, outcomes),
            "brier": brier(found, outcomes),
            "brier_constant": brier([float(np.mean(labels))] * len(outcomes), outcomes),
            "bins": reliability_bins(found, outcomes),
        })
    return figures


def _scored(questions: Sequence[Question]) -> list[Solution]:
    return [one for question in questions for one in question.solutions if one.reward is not None]
