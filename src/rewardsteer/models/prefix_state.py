"""What has been read of a batch of prefixes: their tokens, the cache, the answers.

Shapes: B prefixes, W columns of the cache without candidates, T columns of given prefixes,
K candidates, X hidden or vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import multimode
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# In place of a row's number: a new one comes here.
NEW = -1


@dataclass
class PrefixState:
    """Prefixes, padded on the left.

    Attributes:
        cache: a `rewardsteer.models.growing_cache.GrowingCache`.
        ids, mask: ``[B, W]``; the mask of a row of which nothing is known is empty.
        answer: ``[B, X]`` at the end of every prefix.
        probed: candidates ``[B, K]``, which stand behind the prefixes in the cache, and the answers
            ``[B, K, X]``; None when there are none.
    """

    cache: Any
    ids: Tensor
    mask: Tensor
    answer: Tensor
    probed: tuple[Tensor, Tensor] | None = None

    @classmethod
    def empty(cls, rows: int) -> "PrefixState":
        """Nothing was read."""
        # The library takes seconds to import; whoever only scores need not wait for it.
        from rewardsteer.models.growing_cache import GrowingCache

        nothing = torch.empty(rows, 0, dtype=torch.long)
        return cls(GrowingCache(), nothing, nothing.bool(), torch.empty(rows, 0))

    @property
    def lengths(self) -> Tensor:
        """Tokens ``[B]`` of each prefix."""
        return self.mask.sum(dim=1)

    def append(self, ids: Tensor, mask: Tensor) -> None:
        """Add columns to the record of what was read."""
        self.ids = torch.cat([self.ids, ids], dim=1)
        self.mask = torch.cat([self.mask, mask], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat rows; below 0 a row of which nothing is known."""
        kept = rows.clamp(min=0)
        there = kept.to(self.answer.device)
        self.ids, self.answer = self.ids[kept], self.answer[there]
        self.mask = self.mask[kept] & (rows >= 0)[:, None]
        if self.probed is not None:
            self.probed = (self.probed[0][kept], self.probed[1][there])
        self.cache.select(rows)
        # Columns on the left in which no row has a token any more.
        spare = self.ids.shape[1] - int(self.lengths.max())
        self.ids, self.mask = self.ids[:, spare:], self.mask[:, spare:]
        self.cache.cut(left=spare)

    def place(self, rows: Tensor, other: "PrefixState") -> None:
        """Write all rows of another state into places of this one; both were probed with the
        candidates of these rows, or neither."""
        width = max(self.ids.shape[1], other.ids.shape[1])
        self.ids, self.mask = _widen(self.ids, width), _widen(self.mask, width)
        self.ids[rows], self.mask[rows] = _widen(other.ids, width), _widen(other.mask, width)
        self.cache.place(rows, other.cache)
        there = rows.to(self.answer.device)
        self.answer[there] = other.answer
        if self.probed is not None and other.probed is not None:
            self.probed[1][there] = other.probed[1]

    def shared(self, rows: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """How many tokens ``[R]`` at the beginning of given prefixes some rows hold.

        Args:
            rows: their numbers.
            ids: ``[R, T]``, padded on the left.
            lengths: ``[R]``, tokens of each.
        """
        known = self.lengths[rows]
        width = int(torch.minimum(known, lengths).max())
        ours = from_the_left(self.ids[rows], known, width)
        theirs = from_the_left(ids, lengths, width)
        both = torch.arange(width) < torch.minimum(known, lengths)[:, None]
        return ((ours == theirs) & both).long().cumprod(dim=1).sum(dim=1)

    def part(self, rows: Tensor, keep: Tensor, *, answers: bool = False) -> "PrefixState":
        """A state of its own of some rows ``[R]``, of each the first ``keep [R]`` tokens; with
        ``answers``, which are those of all its tokens, too."""
        columns, mask = self._first(rows, keep, int(keep.max()))
        ids = self.ids[rows].gather(1, columns)
        answer = self.answer[rows.to(self.answer.device) if answers else slice(0)]
        return PrefixState(self.cache.part(rows, columns), ids, mask, answer)

    def copy_of(self, row: int) -> "PrefixState | None":
        """A state of one row alone; None where nothing is known of it, or it has candidates."""
        rows = torch.tensor([row])
        keep = self.lengths[rows]
        if self.probed is not None or not int(keep):
            return None
        return self.part(rows, keep, answers=True)

    def among(self, place: int, places: int) -> "PrefixState":
        """A state of ``places`` rows, of which one is a copy of this state's only one and nothing
        is known of the others."""
        origins = torch.full((places,), NEW)
        origins[place] = 0
        state = self.part(torch.tensor([0]), self.lengths, answers=True)
        state.select(origins)
        return state

    def rewind(self, rows: Tensor, keep: Tensor) -> None:
        """Forget all but the first ``keep [R]`` tokens of some rows ``[R]``."""
        columns, mask = self._first(rows, keep, self.ids.shape[1])
        self.ids[rows], self.mask[rows] = self.ids[rows].gather(1, columns), mask
        self.cache.shift(rows, columns)

    def _first(self, rows: Tensor, keep: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Columns ``[R, width]`` in which the first tokens of rows stand, moved to the right edge,
        and which of them are real."""
        places = torch.arange(width) - (width - keep)[:, None]
        begin = self.ids.shape[1] - self.lengths[rows]
        return (places + begin[:, None]).clamp(min=0), places >= 0

    def settle(self, tokens: Tensor) -> Tensor:
        """After a probe: keep what was read of the candidates that were taken, drop the others.

        Args:
            tokens: ``[B]``, what follows each prefix.

        Returns:
            ``[B]``, which rows took one of their candidates; of the others the last token is wrong.
        """
        assert self.probed is not None
        (candidates, answers), self.probed = self.probed, None
        taken = candidates == tokens[:, None]
        which = taken.long().argmax(dim=1)
        self.cache.keep_one(which, candidates.shape[1])
        there = which.to(answers.device)
        self.answer = answers[torch.arange(len(there), device=there.device), there]
        self.append(tokens[:, None], torch.ones_like(tokens[:, None]).bool())
        return taken.any(dim=1)

    def drop_candidates(self) -> None:
        """After a probe: as if there had been none."""
        assert self.probed is not None
        self.cache.cut(right=self.probed[0].shape[1])
        self.probed = None

    def growth(self, ids: Tensor, lengths: Tensor) -> tuple[int, Tensor]:
        """Columns by which most prefixes grew, and which ``[B]`` did nothing but grow by them.

        Args:
            ids: ``[B, T]``, padded on the left.
            lengths: ``[B]``, tokens of each row.
        """
        known = self.lengths
        more = (lengths - known)[(known > 0) & (lengths >= known)]
        grown = min(multimode(more.tolist())) if len(more) else 0
        before, after, real = self._aligned(ids, grown)
        same = ((before == after) | ~real).all(dim=1)
        return grown, same & (known > 0) & (lengths == known + grown)

    def origins(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """For every given row, a known one that it continues, or `NEW`; see `growth`."""
        grown = int(lengths.max() - self.lengths.max())
        if grown < 0:
            return torch.full((len(ids),), NEW)
        before, after, real = self._aligned(ids, grown)
        same = ((before[None] == after[:, None]) | ~real[None]).all(dim=2)
        same &= lengths[:, None] == self.lengths[None] + grown
        return same.long().argmax(dim=1).where(same.any(dim=1), NEW)

    def _aligned(self, ids: Tensor, grown: int) -> tuple[Tensor, Tensor, Tensor]:
        """Known ids, the same columns of the given ones, and which known ones are real."""
        end = ids.shape[1] - grown
        width = min(self.ids.shape[1], end)
        begin = self.ids.shape[1] - width
        return self.ids[:, begin:], ids[:, end - width : end], self.mask[:, begin:]


def _widen(rows: Tensor, width: int) -> Tensor:
    """Rows ``[B, width]``, filled up on the left."""
    return pad(rows, (width - rows.shape[1], 0))


def from_the_left(rows: Tensor, lengths: Tensor, width: int) -> Tensor:
    """The first ``width`` tokens of left-padded rows; whatever stands behind the end of a row."""
    begin = rows.shape[1] - lengths
    return rows.gather(1, (begin[:, None] + torch.arange(width)).clamp(max=rows.shape[1] - 1))


def left_pad(rows: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]`` with padding on the left."""
    width = max(len(row) for row in rows)
    missing = [width - len(row) for row in rows]
    padded = [[padding] * more + list(row) for row, more in zip(rows, missing, strict=True)]
    mask = torch.arange(width) >= torch.tensor(missing)[:, None]
    return torch.tensor(padded), mask.long()
