"""Forward passes over some rows of a reader's cache; the others are left as they are.

The tokens that a row has gained, one or many, are computed in one forward pass over a copy of the
row's cache, which is written back. A row that grew less than another computes some of its last
tokens again, in columns that would be padding otherwise; they do not count.

Shapes: R rows, T columns of given prefixes, K candidates, X hidden or vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewardsteer.models.prefix_state import EMPTY_ROW, PrefixState, token_counts

if TYPE_CHECKING:
    from rewardsteer.models.prefix_reader import PrefixReader


@dataclass(frozen=True)
class SomeRows:
    """Answers as a `rewardsteer.models.prefix_reader.PrefixReader` of these rows would."""

    reader: "PrefixReader"
    rows: Sequence[int]
    places: int

    def part_of(self, rows: Sequence[int], places: int) -> "SomeRows":
        return SomeRows(self.reader, [self.rows[row] for row in rows], self.places)

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answers ``[R, X]`` at the last position of every prefix ``[R, T]``."""
        self.reader.resize(self.places)
        fresh = self._read(self.rows, prefix_ids, attention_mask, None)
        answer = fresh.answer
        self._put(fresh)
        return answer

    @torch.no_grad()
    def score_candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor
    ) -> Tensor:
        """Answers ``[R, K, X]`` after every prefix∘candidate. No candidate is kept: the one that a
        prefix continues with is read with what comes next."""
        self.reader.resize(self.places)
        if self.reader.state is not None:
            self.reader.state.drop_candidates()
        candidates, tree = candidate_ids.cpu(), self.reader.model.takes_tree(prefix_ids.shape[1])
        fresh = self._read(self.rows, prefix_ids, attention_mask, candidates if tree else None)
        answers = fresh.drop_candidates()
        if answers is None:
            answers = self.reader.one_by_one(fresh, torch.tensor(list(self.rows)), candidates)
        self._put(fresh)
        return answers

    @torch.no_grad()
    def peek(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answers ``[N, X]`` for continuations ``[N, T]`` of the only row, in one forward pass over
        copies of its cache; the row itself is left as it is."""
        [row] = self.rows
        self.reader.resize(self.places)
        forwards = self.reader.forwards[row]
        answer = self._read([row] * len(prefix_ids), prefix_ids, attention_mask, None).answer
        self.reader.forwards[row] = forwards + 1
        return answer

    def _read(
        self, rows: Sequence[int], ids: Tensor, mask: Tensor, candidates: Tensor | None
    ) -> PrefixState:
        index = torch.tensor(list(rows))
        return self.reader.prefill(index, ids.cpu(), token_counts(mask), candidates)

    def _put(self, fresh: PrefixState) -> None:
        """Write a state of these rows, of no use afterwards, into that of all."""
        index = torch.tensor(list(self.rows))
        if self.reader.state is None:
            origins = torch.full((self.places,), EMPTY_ROW)
            origins[index] = torch.arange(len(index))
            fresh.select(origins)
            self.reader.state = fresh
        else:
            self.reader.state.place(index, fresh)
