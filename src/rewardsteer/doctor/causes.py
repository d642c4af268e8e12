"""Why another program gives different rewards: the numbers of every known cause are compared.

A cause is a reading (the tokens that the other program's model got) with a transformation (what it
did to the reward afterwards). The model at hand computes the numbers that each cause would give. A
cause is found where they equal the other program's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rewardsteer.doctor.patient import Patient, largest
from rewardsteer.doctor.readings import readings


class _Transformation(NamedTuple):
    """A change of rewards by a program: name for JSON, text for messages, function, remedy."""

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
# A line through fewer points may fit by chance.
_FEWEST_FOR_LINE = 5


@dataclass(frozen=True)
class Cause:
    """Why numbers differ.

    Attributes:
        name: short, for JSON: the reading and the transformation.
        text: the end of a sentence that begins "the numbers are those of".
        remedy: what makes the numbers equal.
    """

    name: str
    text: str
    remedy: str


def find_cause(patient: Patient, numbers: np.ndarray) -> Cause | None:
    """Find out why another program's numbers ``[N]`` for the texts differ from the rewards.

    Returns:
        the first cause that gives the same numbers; None if no known cause does.
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
    """Whether equal numbers show the cause: those of a saturated sigmoid equal many others."""
    spread = float(np.ptp(values))
    return len(values) == 1 or spread > 10 * largest(values, numbers)


def _line(patient: Patient, numbers: np.ndarray) -> Cause | None:
    """The cause that rewards were shifted or scaled, for example by a stored mean and deviation."""
    rewards = patient.rewards
    if len(rewards) < _FEWEST_FOR_LINE or np.ptp(rewards) == 0:
        return None
    slope, intercept = np.polyfit(rewards, numbers, 1)
    if slope == 0 or not patient.equal((numbers - intercept) / slope, rewards):
        return None
    return Cause(
        "scaled", f"rewards times {slope:.4g} plus {intercept:.4g}, in the same order",
        "remove the mean and the standard deviation that one side has set (config.json: mean, std)",
    )
