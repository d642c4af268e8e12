"""Check: the number and names of a classifier's labels."""

import re
from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient

_GOOD = frozenset({"good", "positive", "pos", "chosen", "accepted", "correct", "right", "safe",
                   "helpful", "better", "preferred", "true", "yes"})
_BAD = frozenset({"bad", "negative", "neg", "rejected", "incorrect", "wrong", "unsafe", "harmful",
                  "worse", "false", "no"})


class Labels(Check):
    """With several labels it is open which number is the reward; the second of two is not always
    the good one."""

    name = "labels"
    needs_model = False

    def run(self, patient: Patient) -> Iterator[Finding]:
        folder = patient.folder
        if not folder.architecture.endswith("ForSequenceClassification"):
            return
        names = folder.labels
        if len(names) == 1:
            yield self.found("ok", "one label; the reward is its raw number")
        elif len(names) == 2 and _means(names[0], _GOOD) and _means(names[1], _BAD):
            yield self.found(
                "fault", f"the labels are swapped: {names[0]!r} is the first of two and "
                f"{names[1]!r} the second, so programs that take the second number (or the second "
                "minus the first) rank worse answers higher. Take the first minus the second",
                labels=names,
            )
        else:
            yield self.found(
                "note", f"{len(names)} labels ({', '.join(names[:6])}"
                f"{', …' if len(names) > 6 else ''}): programs that apply a softmax or take the "
                "largest do not compute a reward; set which labels count", labels=names,
            )


def _means(name: str, words: frozenset[str]) -> bool:
    return bool(words.intersection(re.split(r"[^a-z]+", name.lower())))
