"""A guide that acts at some tokens: the reward model is asked about these rows alone.

Its cache catches up when a row is asked about again, in one forward pass over all tokens since
then. Each row is asked about when its own gate opens, whatever the other rows do, so responses do
not depend on the batch, and costs by at most a token for each guided one. (Waiting until several
rows are due would save forward passes of the reward model and cost some of the policy, about a
fifth of both together at 16 rows and a share of 16 %; but a waiting row must be copied out of the
policy's cache and back, which takes that away.)

Shapes: B rows, V the policy's logits a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.gates import OF_GUIDE, Gate, measures, pulls
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, check_numbers
from rewardsteer.decoding.guides.session import AskingSession, GuideSession


class GatedSession(GuideSession):
    """A session that runs another one only where gates are open.

    Args:
        guide: its settings define the gates of prefixes without gates of their own.
        inner: the guide's session.
        scout: a session of a cheaper second guide, whose scores the gate ``kl`` measures. None: it
            measures the guide's own scores, which are then computed at every token.
    """

    def __init__(
        self, guide: LogitsGuide, inner: AskingSession, scout: AskingSession | None = None
    ) -> None:
        super().__init__(guide)
        self._inner, self._scout = inner, scout
        self._steps: list[int] = []
        self._gates: list[Gate | None] = []

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` of the rows with an open gate, the policy's of the others."""
        gates = prefix.gates or self._own(prefix)
        values = measures(gates, logits)
        watched = [row for row, gate in enumerate(gates) if gate.kind == OF_GUIDE]
        looked = torch.empty(0)
        if watched:
            looked = (self._scout or self._inner).scores_of(watched, prefix, logits)
            part = prefix.of(watched)
            check_numbers(logits[watched], looked, part)  # else a gate would count them as no pull
            for place, error in part.failed.items():
                prefix.fail(watched[place], error)
            distances = pulls([gates[row] for row in watched], logits[watched], looked)
            for row, distance in zip(watched, distances, strict=True):
                values[row] = distance
        due = [
            row for row, gate in enumerate(gates)
            if row not in prefix.failed and gate.decide(prefix.steps[row], values[row])
        ]
        self._count(due, len(gates))
        # Rows that were measured with the guide itself have their scores.
        known = watched if self._scout is None else []
        asked = [row for row in due if row not in known]
        if len(asked) == len(gates):
            return self._inner.scores_of(asked, prefix, logits)
        scores = logits.float().clone()
        if asked:
            scores[asked] = self._inner.scores_of(asked, prefix, logits)
        places = [place for place, row in enumerate(known) if row in due]
        if places:
            scores[[known[place] for place in places]] = looked[places]
        return scores

    def _count(self, due: Sequence[int], rows: int) -> None:
        self._steps = self._steps or [0] * rows
        for row in due:
            self._steps[row] += 1

    def _own(self, prefix: Prefix) -> list[Gate]:
        """Gates by place, for rows without gates; those of new rows are fresh."""
        if len(self._gates) != len(prefix.steps):
            self._gates = [None] * len(prefix.steps)
        for row, name in enumerate(prefix.names):
            if self._gates[row] is None or prefix.steps[row] == 0:
                self._gates[row] = Gate(self._guide.settings, name)
        return [gate for gate in self._gates if gate is not None]

    def select(self, rows: Sequence[int]) -> None:
        self._inner.select(rows)
        if self._scout is not None:
            self._scout.select(rows)
        self._steps = [0 if row < 0 else self._steps[row] for row in rows if self._steps]
        if self._gates:
            kept = [None if row < 0 else self._gates[row] for row in rows]
            self._gates = [None if gate is None else gate.copy(gate.name) for gate in kept]

    def usage(self, row: int) -> RewardUsage:
        """Cumulative usage, the scout's included, and the number of guided tokens."""
        if not self._steps:
            return RewardUsage()
        sessions = [self._inner, *([] if self._scout is None else [self._scout])]
        calls, forwards, tokens = (
            sum(one) for one in zip(*(each.usage(row)[:3] for each in sessions), strict=True)
        )
        looked = 0 if self._scout is None else self._scout.usage(row).tokens
        return RewardUsage(calls, forwards, tokens, self._steps[row], looked)
