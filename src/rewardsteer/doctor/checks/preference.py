"""Check: better answers get higher rewards."""

from collections.abc import Iterator

from scipy.stats import binom

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient

# The sign counts as wrong where chance gives so few correct pairs with less than this probability.
_CHANCE = 0.005


class Preference(Check):
    """A model that ranks worse answers higher has its labels or its sign swapped (cost models
    do)."""

    name = "preference"

    def run(self, patient: Patient) -> Iterator[Finding]:
        pairs = patient.samples.pairs
        if not pairs:
            return
        gains = [patient.rewards[better] - patient.rewards[worse] for better, worse in pairs]
        right = sum(bool(gain > 0) for gain in gains)
        ties = sum(bool(gain == 0) for gain in gains)
        figures = {"pairs": len(pairs), "right": right, "ties": ties}
        whose = "your" if patient.samples.own else "easy"
        counted = f"{right} of {len(pairs)} {whose} pairs have the higher reward on the better side"
        # Ties are half right.
        if binom.cdf(right + ties / 2, len(pairs), 0.5) < _CHANCE:
            yield self.found(
                "fault", f"{counted}: the labels or the sign are swapped (a cost model gives "
                "higher numbers to worse answers). Take the negative", **figures,
            )
        elif right < 0.6 * len(pairs):
            yield self.found("note", f"{counted}: hardly better than chance", **figures)
        else:
            yield self.found("ok", counted, **figures)
