"""Guided scores after several drafted tokens of each row, from one forward pass.

Shapes: B rows, T columns of their left-padded prefixes with drafts, N positions that are asked
about, V the policy's logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.decoding.guides.session import GuideSession, VocabularySession


@dataclass(frozen=True)
class Ends:
    """Positions at the ends of rows.

    Attributes:
        counts: per row, how many of its last positions.
    """

    counts: Sequence[int]

    @property
    def rows(self) -> list[int]:
        """The row of each position ``[N]``."""
        return [row for row, count in enumerate(self.counts) for _ in range(count)]

    @property
    def steps_back(self) -> list[int]:
        """Number of tokens of its row after each position."""
        return [behind for count in self.counts for behind in reversed(range(count))]

    def of(self, reader: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """A reader's answers ``[N, X]`` there."""
        keep = max(self.counts)
        answers: Tensor = reader.tail(ids, mask, self.counts).flatten(0, 1)
        pairs = zip(self.rows, self.steps_back, strict=True)
        return answers[[row * keep + keep - 1 - behind for row, behind in pairs]]


@dataclass(frozen=True)
class _View:
    """A reader restricted to given positions."""

    reader: Any
    ends: Ends

    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answers ``[N, X]``."""
        return self.ends.of(self.reader, prefix_ids, attention_mask)


def takes_drafts(session: GuideSession) -> bool:
    """Whether a session can score drafted tokens: it asks about all next tokens, and its reward
    models have caches of their own; or it asks nothing."""
    if type(session) is GuideSession:
        return True
    return isinstance(session, VocabularySession) and session.takes_drafts


def scores_at(session: GuideSession, prefix: Prefix, logits: Tensor, ends: Ends) -> Tensor:
    """Guided scores ``[N, V]`` (float32).

    Args:
        session: see `takes_drafts`.
        prefix: rows with their drafts, which its steps include. A row that cannot be guided fails
            in it.
        logits: of the policy ``[N, V]``.
        ends: the positions.
    """
    if not isinstance(session, VocabularySession):
        return logits.float()
    rows = ends.rows
    pairs = zip(rows, ends.steps_back, strict=True)
    steps = [prefix.steps[row] - behind for row, behind in pairs]
    places = Prefix(prefix.ids, prefix.mask, steps, [prefix.names[row] for row in rows])
    scores = session.scores_at(places, logits, rows, lambda cache: _View(cache, ends))
    for place, error in places.failed.items():
        prefix.fail(rows[place], error)
    return scores
