"""Similarities as probabilities: P(correct | similarity, position), fitted on labelled solutions.

A similarity is less informative early in a solution than late, so each range of positions has its
own map: an isotonic regression of the label on the similarities of all tokens there. Positions
count from a solution's first token, because its length is not known during generation. No torch
here.
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from rewardsteer.configuration import Config
from rewardsteer.errors import DataError
from rewardsteer.faults import checked
from rewardsteer.outputs import read_json, write_json


class Range(Config):
    """The map of one range of positions.

    Attributes:
        start: first position; the range ends where the next one begins.
        similarities, probabilities: corners of the map, ascending; it is linear between them and
            level outside.
    """

    start: int = Field(ge=0)
    similarities: list[float] = Field(min_length=1)
    probabilities: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_many(self) -> "Range":
        if len(self.similarities) != len(self.probabilities):
            raise ValueError("similarities and probabilities differ in number")
        return self


class PositionCalibration(Config):
    """Maps by position.

    Attributes:
        ranges: by ascending start, the first at 0.
        model_fingerprint: of the reward model whose similarities these are; "" when unknown.
        solutions: fitted on so many.
    """

    ranges: list[Range] = Field(min_length=1)
    model_fingerprint: str = ""
    solutions: int = 0

    @model_validator(mode="after")
    def _in_order(self) -> "PositionCalibration":
        starts = [one.start for one in self.ranges]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"ranges must begin at 0 and ascend, got {starts}")
        return self

    def probability(self, position: int, similarity: float) -> float:
        """P(correct) of a solution, given the similarity of its token at a position (from 0)."""
        place = bisect_right([one.start for one in self.ranges], position) - 1
        found = self.ranges[place]
        return float(np.interp(similarity, found.similarities, found.probabilities))


def fit_calibration(
    similarities: Sequence[Sequence[float]], correct: Sequence[bool], *, ranges: int = 10,
    model_fingerprint: str = "",
) -> PositionCalibration:
    """Fit the maps.

    Args:
        similarities: of every token, a sequence for each solution.
        correct: whether each solution is.
        ranges: at most so many ranges of positions, with about as many tokens in each.
        model_fingerprint: of the reward model.

    Raises:
        DataError: no solutions, or all with the same label.
    """
    from sklearn.isotonic import IsotonicRegression

    if len(set(map(bool, correct))) < 2:
        raise DataError(
            f"A calibration needs right and wrong solutions, got {len(correct)} with "
            f"{sum(map(bool, correct))} right ones."
        )
    positions = np.concatenate([np.arange(len(one)) for one in similarities])
    values = np.concatenate([np.asarray(one, dtype=float) for one in similarities])
    labels = np.repeat(np.asarray(correct, dtype=float), [len(one) for one in similarities])
    edges = np.quantile(positions, np.linspace(0, 1, ranges + 1)[:-1], method="lower")
    starts = sorted({0, *(int(edge) for edge in edges)})
    fitted = []
    for begin, end in zip(starts, [*starts[1:], positions.max() + 1], strict=True):
        here = (positions >= begin) & (positions < end)
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(values[here], labels[here])
        fitted.append(Range(
            start=begin, similarities=model.X_thresholds_.tolist(),
            probabilities=model.y_thresholds_.tolist(),
        ))
    return PositionCalibration(
        ranges=fitted, model_fingerprint=model_fingerprint, solutions=len(correct)
    )


def save_calibration(calibration: PositionCalibration, place: Path) -> None:
    write_json(place, calibration.model_dump(mode="json"))


def load_calibration(place: Path) -> PositionCalibration:
    """Read a calibration.

    Raises:
        DataError: missing, or no calibration.
    """
    if not place.is_file():
        raise DataError(
            f"Expected a calibration at {place}; make one with 'rewardsteer calibrate'."
        )
    try:
        return checked(PositionCalibration, read_json(place))
    except ValueError as error:
        raise DataError(
            f"{place} is no calibration ({error}); make one with 'rewardsteer calibrate'."
        ) from error
