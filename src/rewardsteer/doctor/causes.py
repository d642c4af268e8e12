"""Why two programs give different rewards: candidates are computed and compared with the numbers.

A cause is a reading (which tokens the other program read) with a transformation (what it did to the
reward afterwards). The numbers of every cause are computed with the model at hand; the cause whose
numbers are equal to the other program's is the one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rewardsteer.doctor.patient import Patient, largest
from rewardsteer.doctor.readings import readings


class _Transformation(NamedTuple):
    """What a program may do to a reward: name for JSON, text for messages, function, remedy."""

    name: str
    text: str
    function: Callable[[np.ndarray], np.ndarray]
    remedy: str


_RAW = "ask for raw numbers (vLLM: use_activation false)"
_TRANSFORMATIONS = (
    _Transformation("", "rewards", lambda values: values, ""),
    _Transformation("sigmoid", "sigmoids of rewards", lambda values: 1 / (1 + np.exp(-values)),
                    _RAW),
    _Transformation("sign", "negative rewards", lambda values: -values,
                    "the labels are swapped on one side"),
    _Transformation("log sigmoid", "logarithms of sigmoids of rewards",
                    lambda values: -np.logaddexp(0, -values), _RAW),
)
# Fewer texts are fitted by a line whatever they are.
_FEWEST_FOR_LINE = 5


@dataclass(frozen=True)
class Cause:
    """Why numbers differ.

    Attributes:
        name: short, for JSON: the reading and the transformation.
        text: a sentence part that follows "the numbers are those of".
        remedy: what makes them equal.
    """

    name: str
    text: str
    remedy: str


def find_cause(patient: Patient, numbers: np.ndarray) -> Cause | None:
    """Why another program's numbers ``[N]`` for the texts are not the model's rewards.

    Returns:
        the first cause whose numbers are equal to them; None when none is.
    """
    if len(numbers) > 1 and bool(np.all(numbers == 1.0)):
        return Cause(
            "softmax", "a softmax over one label, which is 1 for every text",
            "ask for raw numbers (vLLM: use_activation false; SGLang: its native /classify)",
        )
    for cause, values in _candidates(patient):
        if patient.equal(values, numbers) and _tells(values, patient, numbers):
            return cause
    return _line(patient, numbers)


def _candidates(patient: Patient) -> Iterator[tuple[Cause, np.ndarray]]:
    known = [(one, one.rewards(patient)) for one in readings(patient)]
    for change in _TRANSFORMATIONS:
        if change.name:
            yield Cause(change.name, change.text, change.remedy), change.function(patient.rewards)
        for reading, rewards in known:
            yield Cause(
                " + ".join(filter(None, (reading.name, change.name))),
                f"{change.text} of texts {reading.text}",
                "; ".join(filter(None, (change.remedy, reading.remedy))),
            ), change.function(rewards)


def _tells(values: np.ndarray, patient: Patient, numbers: np.ndarray) -> bool:
    """Whether equal numbers prove anything: those of a saturated sigmoid are equal to many."""
    spread = float(np.ptp(values))
    return len(values) == 1 or spread > 10 * largest(values, numbers)


def _line(patient: Patient, numbers: np.ndarray) -> Cause | None:
    """Rewards that were shifted or scaled, as by a stored mean and deviation."""
    rewards = patient.rewards
    if len(rewards) < _FEWEST_FOR_LINE or np.ptp(rewards) == 0:
        return None
    slope, intercept = np.polyfit(rewards, numbers, 1)
    if slope == 0 or not patient.equal((numbers - intercept) / slope, rewards):
        return None
    return Cause(
        "scaled", f"rewards times {slope:.4g} plus {intercept:.4g}, in the same order",
        "the mean and deviation of one of the two are set (config.json: mean, std)",
    )
