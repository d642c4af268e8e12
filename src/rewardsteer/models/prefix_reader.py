"""Logits or states at the ends of growing prefixes, with a key/value cache.

A prefix that continues a cached one costs only its new tokens. Prefixes are compared with the cache
at every call, so a row that did anything else (went back, is new, took none of its candidates) is
still answered correctly: it gets a forward pass of its own from where it differs, at no cost to the
other rows.

Shapes: B prefixes, T columns of the left-padded prefixes, K candidates, X hidden or vocabulary
size.
"""

from collections.abc import Mapping, Sequence
from statistics import multimode
from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.cached_forward import CachedForward
from rewardsteer.models.prefix_state import PrefixState, token_counts
from rewardsteer.models.some_rows import SomeRows

_ONE = torch.ones(1).long()


class PrefixReader:
    """A model with a cache of the prefixes that it was last asked about.

    Args:
        module, tree, cached: see `CachedForward`; without a tree mask, `score_candidates` takes a
            forward pass for each candidate.

    Attributes:
        forwards: per row, forward passes in which it took part.
        tokens: per row, tokens computed, padding excluded.
        model: the module's forward passes.
        state: what is cached; None: nothing.
    """

    def __init__(
        self, module: Any, *, tree: bool | None = None, cached: bool | None = None
    ) -> None:
        self.module = module
        self.forwards: list[int] = []
        self.tokens: list[int] = []
        self.model = CachedForward(module, tree=tree, cached=cached)
        self.state: PrefixState | None = None

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answer ``[B, X]`` at the last position of every prefix.

        Args:
            prefix_ids: ``[B, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[B, T]``, 1 on real tokens.
        """
        return self._advance(prefix_ids, attention_mask, None).answer

    @torch.no_grad()
    def score_candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor
    ) -> Tensor:
        """Answers ``[B, K, X]`` after every prefix∘candidate.

        One forward pass computes the prefixes' new tokens and all candidates, which do not attend
        to each other. The candidate that a prefix continues with is not computed again. Where the
        model takes no tree mask, candidates are computed one after the other.

        Args:
            prefix_ids: ``[B, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[B, T]``, 1 on real tokens.
            candidate_ids: ``[B, K]``.
        """
        candidates = candidate_ids.cpu()
        if not self.model.takes_tree(prefix_ids.shape[1]):
            state = self._advance(prefix_ids, attention_mask, None)
            return self.one_by_one(state, torch.arange(len(candidates)), candidates)
        scored = self._advance(prefix_ids, attention_mask, candidates).scored
        assert scored is not None
        return scored[1]

    def part_of(self, rows: Sequence[int], places: int) -> SomeRows:
        """Some of ``places`` rows, to be read by themselves."""
        return SomeRows(self, rows, places)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; the others are dropped.

        Args:
            rows: their numbers, `rewardsteer.models.prefix_state.EMPTY_ROW` for new ones.
        """
        if not self.forwards:
            return
        self.forwards = [0 if row < 0 else self.forwards[row] for row in rows]
        self.tokens = [0 if row < 0 else self.tokens[row] for row in rows]
        if all(row < 0 for row in rows):
            self.state = None
        if self.state is not None:
            self.state.select(torch.tensor(list(rows), dtype=torch.long))

    @torch.no_grad()
    def tail(self, prefix_ids: Tensor, attention_mask: Tensor, counts: Sequence[int]) -> Tensor:
        """Answers ``[B, K, X]`` at the last K positions of every prefix, in one forward pass. Of
        each row the last ``counts [B]`` are valid, and K is their maximum. Needs `continues`."""
        ids, lengths = prefix_ids.cpu(), token_counts(attention_mask)
        self.resize(len(ids))
        every, wanted = torch.arange(len(ids)), torch.tensor(list(counts))
        self.state = self.prefill(every, ids, lengths, None, wanted)
        assert self.state.recent is not None
        return self.state.recent

    @property
    def continues(self) -> bool:
        """Whether the model continues from its cache."""
        return self.model.uses_cache

    def hold(self, row: int) -> PrefixState | None:
        """A copy of a row for `restore`; None where nothing of it is cached."""
        state = self.state
        if state is None or state.scored is not None or not self.model.uses_cache:
            return None
        return state.copy_of(torch.tensor([row])) if int(state.lengths[row]) else None

    def restore(self, held: Mapping[int, PrefixState], *, places: int) -> None:
        """Put copies that `hold` made into some of ``places`` rows, by number."""
        self.resize(places)
        for place, state in held.items():
            if self.state is not None:
                self.state.place(torch.tensor([place]), state)
            else:
                self.state = state.among(place, places)

    def resize(self, places: int) -> None:
        """Drop the cache where the number of rows changes."""
        if len(self.forwards) != places:
            self.state, self.forwards, self.tokens = None, [0] * places, [0] * places

    def _advance(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidates: Tensor | None
    ) -> PrefixState:
        """Compute the new tokens of the prefixes, and the candidates if there are any.

        Rows that grew by the same number of tokens as most others share a forward pass, in place.
        """
        ids, lengths = prefix_ids.cpu(), token_counts(attention_mask)
        self.resize(len(ids))
        together = torch.zeros(len(ids), dtype=torch.bool)
        state, columns, apart = self.state, 0, []
        if state is not None:
            if state.scored is not None:
                state.commit_candidate(ids, lengths)
            known = state.known(ids, lengths)
            grown = lengths - known
            continues = (known == state.lengths) & (known > 0)
            columns = min(multimode(grown[continues].tolist()), default=0)
            together = continues & (grown == columns)
            unchanged = (continues & (grown == 0) & ~together).nonzero().squeeze(1)
            if len(unchanged) and candidates is None:
                apart.append((unchanged, state.copy_of(unchanged)))
        read = ~together
        for rows, _ in apart:
            read[rows] = False
        if bool(read.any()):
            rows = read.nonzero().squeeze(1)
            asked = None if candidates is None else candidates[rows]
            apart.append((rows, self.prefill(rows, ids[rows], lengths[rows], asked)))
        if state is None or not bool(together.any()):
            [(_, self.state)] = apart
            return self.state
        new = columns + (0 if candidates is None else candidates.shape[1])
        if new:
            # All rows take part, so that none is copied out of the cache and back; the results of
            # the rows that had a pass of their own are overwritten.
            passes = self.model.extend(
                state, ids[:, ids.shape[1] - columns :], state.lengths + columns, candidates
            )
            rows = together.nonzero().squeeze(1)
            self._count(rows, torch.full_like(rows, new), lengths[rows], passes)
        for rows, fresh in apart:
            state.place(rows, fresh)
        return state

    def prefill(
        self, rows: Tensor, ids: Tensor, lengths: Tensor, candidates: Tensor | None,
        tail: Tensor = _ONE,
    ) -> PrefixState:
        """The state of some rows, computed from where they differ from the cache; counts the cost.

        Args:
            rows: ``[R]``, their numbers.
            ids: ``[R, T]``, padded on the left.
            lengths: ``[R]``, tokens of each.
            candidates: ``[R, K]``.
            tail: ``[R]`` or ``[1]``, number of positions at the end of a row that need answers.
        """
        fresh, known = PrefixState.empty(len(rows)), torch.zeros_like(lengths)
        if self.state is not None:
            # The last tokens are computed again even if they are cached, for their answers.
            known = self.state.shared(rows, ids, lengths).minimum(lengths - tail)
        most = int(tail.max())
        new = max(int((lengths - known).max()), most)
        keep = (lengths - new).clamp(min=0)
        if self.state is not None and bool((keep > 0).any()):
            fresh = self.state.part(rows, keep)
        passes = self.model.extend(fresh, ids[:, ids.shape[1] - new :], lengths, candidates, most)
        extra = 0 if candidates is None else candidates.shape[1]
        self._count(rows, lengths - known + extra, lengths, passes)
        return fresh

    def one_by_one(self, state: PrefixState, rows: Tensor, candidates: Tensor) -> Tensor:
        """Answers ``[R, K, X]`` after rows of a state, in a pass for each of their candidates."""
        answers, one = [], torch.ones(len(rows)).long()
        longer = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
        for column in candidates.split(1, dim=1):
            if self.model.uses_cache:
                positions = state.lengths[:, None]
                answers.append(self.model.columns(state.cache, column, longer, positions, keep=1))
                state.cache.crop_columns(right=1)
            else:
                ids = torch.cat([state.ids, column], dim=1)
                answers.append(self.model.whole(ids, state.lengths + 1)[:, None])
            self._count(rows, one, state.lengths + 1, 1)
        return torch.cat(answers, dim=1)

    def _count(self, rows: Tensor, computed: Tensor, lengths: Tensor, passes: int) -> None:
        """Count the cost of rows ``[R]``: forward passes, and the tokens ``[R]`` that each computed
        in them, or its whole length ``[R]`` where nothing is cached."""
        tokens = computed if self.model.uses_cache else lengths
        for row, count in zip(rows.tolist(), tokens.tolist(), strict=True):
            self.forwards[row] += passes
            self.tokens[row] += count
