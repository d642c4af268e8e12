"""When a response is dropped while it is written: rules over its tokens' similarities to a goal.

    below        the first token, after the first ``drop_start``, below the threshold
    patience     as many tokens in a row below it
    probability  as ``below``, of P(correct | similarity, position) from a calibration

The crossing token was generated and read; what would come after it is not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.goals.calibration import PositionCalibration, load_calibration


def load_rule(config: DecodingConfig, scorer: Any) -> PositionCalibration | None:
    """The calibration of the rule ``probability``; None for the others.

    Raises:
        ConfigError: none is named.
        DataError: it cannot be read.
        MismatchError: it is of another reward model.
    """
    if config.drop_rule != "probability":
        return None
    if config.calibration is None:
        raise ConfigError(
            "The drop_rule 'probability' needs a calibration; make one with 'rewardsteer "
            "calibrate' and name its file as calibration."
        )
    found = load_calibration(Path(config.calibration))
    ours = getattr(scorer, "fingerprint", "")
    if found.model_fingerprint and ours and found.model_fingerprint != ours:
        raise MismatchError(
            f"The calibration {config.calibration} belongs to a reward model with other weights; "
            "make one for this reward model with 'rewardsteer calibrate'."
        )
    return found


def rejection_rule(
    config: DecodingConfig, calibration: PositionCalibration | None
) -> Callable[[float], bool] | None:
    """A rule for one response: takes each token's similarity in turn, returns whether to drop.

    Args:
        config: ``drop_rule``, ``drop_threshold``, ``drop_start`` and ``drop_patience`` are used.
        calibration: for the rule ``probability``.

    Returns:
        the rule, None where nothing is to be dropped.
    """
    if config.drop_rule == "none":
        return None
    return _RejectionRule(config, calibration if config.drop_rule == "probability" else None)


class _RejectionRule:
    def __init__(self, config: DecodingConfig, calibration: PositionCalibration | None) -> None:
        self._config, self._calibration = config, calibration
        self._patience = config.drop_patience if config.drop_rule == "patience" else 1
        self._seen = self._low = 0

    def __call__(self, similarity: float) -> bool:
        position, value = self._seen, similarity
        self._seen += 1
        if position < self._config.drop_start:
            return False
        if self._calibration is not None:
            value = self._calibration.probability(position, similarity)
        self._low = self._low + 1 if value < self._config.drop_threshold else 0
        return self._low >= self._patience


def crossings(values: np.ndarray, thresholds: np.ndarray, start: int) -> np.ndarray:
    """The rule ``below`` on a finished response: the first token ``[K]`` below each threshold, from
    ``start`` on; the length where there is none.

    Args:
        values: ``[T]`` of one solution.
        thresholds: ``[K]``.
        start: number of first tokens that are ignored.
    """
    lowest = np.minimum.accumulate(values[start:])
    # The running minimum falls, so the first token below τ is a position in sorted order.
    first = np.searchsorted(-lowest, -thresholds, side="right")
    return np.where(first == len(lowest), len(values), first + start)
