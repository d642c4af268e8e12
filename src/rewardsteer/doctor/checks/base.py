"""The base class of checks."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from rewardsteer.doctor.causes import find_cause
from rewardsteer.doctor.findings import Finding, Status
from rewardsteer.doctor.patient import Patient, largest


class Check(abc.ABC):
    """A question about a reward model.

    Attributes:
        name: of the check, as `rewardsteer.doctor.checks.CHECKS` has it.
        needs_model: whether the model must have been loaded.
        needs_tokens: whether the model must score token ids (`Patient.reads_tokens`).
        compares: whether it compares another program's numbers; the result says so where such a
            check was not run.
    """

    name: ClassVar[str]
    needs_model: ClassVar[bool] = True
    needs_tokens: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, patient: Patient) -> Iterator[Finding]:
        """The findings; none where the check does not apply to the model."""

    def found(self, status: Status, summary: str, **figures: Any) -> Finding:
        """A finding of this check."""
        return Finding(self.name, status, summary, figures)

    def compared(
        self, patient: Patient, numbers: np.ndarray, who: str, **figures: Any
    ) -> Finding:
        """A finding about another program's numbers ``[N]`` for the patient's texts."""
        difference = largest(numbers, patient.rewards)
        figures |= {"largest_difference": difference}
        if patient.equal(numbers, patient.rewards):
            return self.found(
                "ok", f"{who} gives the same rewards, largest difference {difference:.2g}",
                **figures,
            )
        cause = find_cause(patient, numbers)
        example = f"{numbers[0]:.5g} for the first text, here {patient.rewards[0]:.5g}"
        if cause is None:
            return self.found(
                "fault", f"{who} gives other numbers ({example}; largest difference "
                f"{difference:.3g}), and none of the known causes explains them", **figures,
            )
        return self.found(
            "fault", f"{who} gives other numbers ({example}): they are {cause.text}. To make them "
            f"equal: {cause.remedy}", cause=cause.name, **figures,
        )
