"""A batch of prefixes whose keys and values are cached.

Shapes: B prefixes, W columns of the cache without candidates, T columns of given prefixes,
K candidates, X hidden or vocabulary size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# In a list of row numbers: an empty row.
EMPTY_ROW = -1


@dataclass
class PrefixState:
    """Prefixes, padded on the left, and the model's answers at their ends.

    Attributes:
        cache: a `rewardsteer.models.preallocated_cache.PreallocatedCache`.
        ids: ``[B, W]``.
        lengths: ``[B]``, tokens of each prefix; 0 in an empty row.
        answer: ``[B, X]`` at the end of every prefix.
        scored: candidates ``[B, K]`` that follow the prefixes in the cache, and the answers
            ``[B, K, X]`` after them; None without candidates.
        recent: answers at the last positions of the latest forward pass; see
            `rewardsteer.models.prefix_reader.PrefixReader.tail`.
    """

    cache: Any
    ids: Tensor
    lengths: Tensor
    answer: Tensor
    scored: tuple[Tensor, Tensor] | None = None
    recent: Tensor | None = None

    @classmethod
    def empty(cls, rows: int) -> "PrefixState":
        """A state of empty rows."""
        # transformers takes seconds to import; scoring alone does not need it here.
        from rewardsteer.models.preallocated_cache import PreallocatedCache

        nothing = torch.empty(rows, 0, dtype=torch.long)
        return cls(PreallocatedCache(), nothing, torch.zeros(rows).long(), torch.empty(rows, 0))

    @property
    def mask(self) -> Tensor:
        """``[B, W]`` bool, True on tokens."""
        width = self.ids.shape[1]
        return torch.arange(width) >= width - self.lengths[:, None]

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat rows; `EMPTY_ROW` makes an empty one."""
        kept = rows.clamp(min=0)
        there = kept.to(self.answer.device)
        self.ids, self.answer = self.ids[kept], self.answer[there]
        self.lengths = self.lengths[kept].where(rows >= 0, 0)
        if self.scored is not None:
            self.scored = (self.scored[0][kept], self.scored[1][there])
        self.cache.select(rows)
        # Columns on the left in which no row has a token any more.
        spare = self.ids.shape[1] - int(self.lengths.max())
        self.ids = self.ids[:, spare:]
        self.cache.crop_columns(left=spare)

    def place(self, rows: Tensor, other: "PrefixState") -> None:
        """Write all rows of another state into rows of this one. Both have answers to candidates,
        or neither."""
        width = max(self.ids.shape[1], other.ids.shape[1])
        self.ids = _widen(self.ids, width).index_copy(0, rows, _widen(other.ids, width))
        self.lengths = self.lengths.index_copy(0, rows, other.lengths)
        self.cache.place(rows, other.cache)
        # Out of place: callers keep the answers that they were given.
        there = rows.to(self.answer.device)
        self.answer = self.answer.index_copy(0, there, other.answer)
        if self.scored is not None and other.scored is not None:
            candidates, answers = self.scored
            self.scored = (candidates, answers.index_copy(0, there, other.scored[1]))

    def shared(self, rows: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """How many tokens ``[R]`` some cached rows and given prefixes have in common at the start.

        Args:
            rows: numbers ``[R]`` of the cached rows.
            ids: ``[R, T]``, padded on the left.
            lengths: ``[R]``, tokens of each given prefix.
        """
        common = torch.minimum(self.lengths[rows], lengths)
        width = int(common.max())
        ours = from_the_left(self.ids[rows], self.lengths[rows], width)
        same = ours == from_the_left(ids, lengths, width)
        same &= torch.arange(width) < common[:, None]
        return same.long().cumprod(dim=1).sum(dim=1)

    def known(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """`shared` of all rows, in a quarter of its time where every row goes on from what is
        cached by equally many tokens.

        Args:
            ids: ``[B, T]``, padded on the left.
            lengths: ``[B]``, tokens of each given prefix.
        """
        width = self.ids.shape[1]
        new = ids.shape[1] - width
        if new >= 0 and bool((lengths - self.lengths == new).all()):
            differs = (ids[:, :width] != self.ids) & self.mask
            if not bool(differs.any()):
                return self.lengths
        return self.shared(torch.arange(len(ids)), ids, lengths)

    def part(self, rows: Tensor, keep: Tensor) -> "PrefixState":
        """A copy of the first ``keep [R]`` tokens of some rows ``[R]``, without answers."""
        width, held = int(keep.max()), self.lengths[rows]
        begin = self.ids.shape[1] - held - (width - keep)
        columns = (begin[:, None] + torch.arange(width)).clamp(min=0)
        return PrefixState(
            self.cache.part(rows, columns), self.ids[rows].gather(1, columns), keep,
            self.answer[:0],
        )

    def copy_of(self, rows: Tensor) -> "PrefixState":
        """A copy of some rows ``[R]`` with their answers."""
        copy = self.part(rows, self.lengths[rows])
        copy.answer = self.answer[rows.to(self.answer.device)]
        return copy

    def among(self, place: int, places: int) -> "PrefixState":
        """A state of ``places`` rows, all empty but one, a copy of this state's only row."""
        state, origins = self.copy_of(torch.tensor([0])), torch.full((places,), EMPTY_ROW)
        origins[place] = 0
        state.select(origins)
        return state

    def drop_candidates(self) -> Tensor | None:
        """Keep none of the cached candidates; their answers, None where there are none."""
        if self.scored is None:
            return None
        (candidates, answers), self.scored = self.scored, None
        self.cache.crop_columns(right=candidates.shape[1])
        return answers

    def commit_candidate(self, ids: Tensor, lengths: Tensor) -> None:
        """Keep the cached candidate that each given prefix goes on with, and drop the others.

        A row that goes on with none of its candidates gets -1 as its last token.

        Args:
            ids: ``[B, T]``, padded on the left.
            lengths: ``[B]``, tokens of each given prefix.
        """
        assert self.scored is not None, "score candidates first"
        (candidates, answers), self.scored = self.scored, None
        grown = lengths > self.lengths
        if not bool(grown.any()):
            self.cache.crop_columns(right=candidates.shape[1])
            return
        column = (ids.shape[1] - lengths + self.lengths).clamp(max=ids.shape[1] - 1)
        following = ids.gather(1, column[:, None])
        taken = (candidates == following) & grown[:, None]
        which = taken.long().argmax(dim=1)
        self.cache.keep_one(which, candidates.shape[1])
        there = which.to(answers.device)
        self.answer = answers[torch.arange(len(there), device=there.device), there]
        tokens = following.where(taken.any(dim=1, keepdim=True), -1)
        self.ids = torch.cat([self.ids, tokens], dim=1)
        self.lengths = (self.lengths + 1).where(self.lengths > 0, 0)


def _widen(rows: Tensor, width: int) -> Tensor:
    """Rows ``[B, width]``, filled up on the left."""
    return pad(rows, (width - rows.shape[1], 0))


def from_the_left(rows: Tensor, lengths: Tensor, width: int) -> Tensor:
    """The first ``width`` tokens ``[B, width]`` of left-padded rows; beyond a row's end, any id."""
    begin = rows.shape[1] - lengths
    return rows.gather(1, (begin[:, None] + torch.arange(width)).clamp(max=rows.shape[1] - 1))


def token_counts(mask: Tensor) -> Tensor:
    """Real tokens ``[B]`` of rows whose mask ``[B, T]`` is 1 on them, on the CPU."""
    return mask.cpu().long().sum(dim=1)
