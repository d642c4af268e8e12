"""Rows of one decoding method at work: a running batch to which each row brings its own settings.

Rows of different weights, temperatures and lengths share every forward pass. Only what decides
which model is asked about what (the method, and for those that ask about candidates their number)
sets rows apart.
"""

from collections.abc import Sequence

from torch import Tensor

from rewardsteer.decoding.candidates import CandidateGuide
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.guide import GuideSession, Prefix, Reads, TokenGuide
from rewardsteer.decoding.loop import Batch, Row
from rewardsteer.decoding.vocabulary import VocabularyGuide
from rewardsteer.decoding.weights import RowWeights, Weight


class Lane:
    """A batch of one method.

    Args:
        engine: the policy.
        guide: the method, made for this lane.
    """

    def __init__(self, engine: HfEngine, guide: TokenGuide) -> None:
        self._weights = RowWeights()
        if isinstance(guide, VocabularyGuide | CandidateGuide):
            guide.weight = self._weights
        self._own: dict[str, Weight] = {}
        reader, session = engine.open(guide)
        self._batch = Batch(
            reader, _Session(session, self._weights, self._own), DecodingConfig(), engine.stop_ids
        )

    @property
    def busy(self) -> int:
        """Rows at work."""
        return self._batch.busy

    def advance(self, entering: Sequence[Row]) -> list[Row]:
        """A token for every row; the rows that finished. Names of rows must be unique.

        Raises:
            NonFiniteError: logits or rewards are no numbers; the lane is of no use any more.
        """
        for row in entering:
            assert row.config is not None, "rows bring their settings"
            self._own[row.name] = Weight(row.config)
        finished = self._batch.advance(entering)
        for row in finished:
            del self._own[row.name]
        return finished


class _Session:
    """A guide's session that is told whose rows it is asked about."""

    def __init__(
        self, session: GuideSession, weights: RowWeights, own: dict[str, Weight]
    ) -> None:
        self._session, self._weights, self._own = session, weights, own

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        self._weights.rows = [self._own[name] for name in prefix.names]
        return self._session.scores(prefix, logits)

    def select(self, rows: Sequence[int]) -> None:
        self._session.select(rows)

    def reads(self, row: int) -> Reads:
        return self._session.reads(row)
