"""Incremental reading of left-padded prefixes, holding a key/value cache.

A decoding step asks a model about prefixes that grew by one token. `PrefixReader.sync` reads only
what is new; `PrefixReader.probe` scores K one-token extensions of every prefix in one forward pass
over a tree mask, in which siblings do not see each other, and keeps the cached states of the one
that is taken. Both check what they are given against what was read: a row that did anything but
grow, or took none of its candidates, is read anew, in a batch of its own beside the others, so it
is never answered wrongly and costs the others nothing. So does a new prompt that takes the place of
a finished one.

Shapes: B prefixes, T columns of the left-padded prefixes, K candidates, X hidden or vocabulary
size.
"""

import inspect
from collections.abc import Mapping, Sequence
from statistics import multimode
from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.capabilities import capability
from rewardsteer.models.prefix_state import NEW, PrefixState, from_the_left
from rewardsteer.models.prefix_trials import try_cache, try_tree
from rewardsteer.models.tree_mask import attention_window, tree_mask

# So many new columns of prefixes are read before their candidates, not with them: a ready-made mask
# holds a number for every pair of columns.
_TOGETHER = 256


class PrefixReader:
    """A model with a cache of what it has read.

    Args:
        module: a Hugging Face causal LM (answers are logits ``[B, V]``) or its backbone (answers
            are last-layer states ``[B, D]``).
        tree: whether `probe` may use one forward over a tree mask; None finds out by trying.
        cached: whether the model can go on from a cache, or reads whole rows anew at every step
            (recurrent layers); None finds out by trying.

    Attributes:
        forwards: per row, network passes in which it took part.
        tokens: per row, token positions read, padding excluded.
    """

    def __init__(
        self, module: Any, *, tree: bool | None = None, cached: bool | None = None
    ) -> None:
        self.module = module
        self.forwards: list[int] = []
        self.tokens: list[int] = []
        self._tree, self._cached = tree, cached
        # A peft wrapper passes anything on; what is understood stands in the model within.
        inner = module.get_base_model() if hasattr(module, "get_base_model") else module
        accepted = inspect.signature(inner.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._state: PrefixState | None = None

    @torch.no_grad()
    def sync(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answer ``[B, X]`` at the last position of every prefix, reading only what is new.

        Args:
            prefix_ids: ``[B, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[B, T]``, 1 on real tokens.
        """
        return self._advance(prefix_ids, attention_mask, None).answer

    @torch.no_grad()
    def probe(self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor) -> Tensor:
        """Answers ``[B, K, X]`` after every prefix∘candidate.

        One forward pass reads the prefixes' new tokens and all candidates. Where the model or its
        attention implementation takes no tree mask, the K candidates are read one after the other.

        Args:
            prefix_ids: ``[B, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[B, T]``, 1 on real tokens.
            candidate_ids: ``[B, K]``.
        """
        candidates = candidate_ids.cpu()
        if not self._may_use_tree(prefix_ids.shape[1]):
            return self._probe_one_by_one(prefix_ids, attention_mask, candidates)
        probed = self._advance(prefix_ids, attention_mask, candidates).probed
        assert probed is not None
        return probed[1]

    @torch.no_grad()
    def visit(
        self, rows: Sequence[int], prefix_ids: Tensor, attention_mask: Tensor, *, places: int
    ) -> Tensor:
        """Answers ``[R, X]`` for some rows, which may have grown by different numbers of tokens, or
        gone back and on from there; the others are left as they are.

        One forward pass reads what is new, in a copy of these rows' caches. A row that grew less
        than another reads some of its last tokens again, in columns that would be padding
        otherwise; they do not count.

        Args:
            rows: their numbers.
            prefix_ids: ``[R, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[R, T]``, 1 on real tokens.
            places: of how many rows they are some.
        """
        if len(self.forwards) != places:
            self._state, self.forwards, self.tokens = None, [0] * places, [0] * places
        index, ids = torch.tensor(list(rows)), prefix_ids.cpu()
        lengths = attention_mask.cpu().long().sum(dim=1)
        read, known = self._take_up(index, ids, lengths)
        answer = read.answer
        if self._state is not None:
            self._state.place(index, read)
        else:
            origins = torch.full((places,), NEW)
            origins[index] = torch.arange(len(index))
            read.select(origins)
            self._state = read
        new = lengths - known if self._goes_on() else lengths
        for row, tokens in zip(rows, new.tolist(), strict=True):
            self.forwards[row] += 1
            self.tokens[row] += tokens
        return answer

    def _take_up(
        self, rows: Tensor, ids: Tensor, lengths: Tensor
    ) -> tuple[PrefixState, Tensor]:
        """A state of some rows, read from where they are known, and how many tokens were."""
        known = torch.zeros_like(lengths)
        if self._state is not None:
            known = self._state.shared(rows, ids, lengths).clamp(max=lengths - 1)
        new = int((lengths - known).max())
        keep = (lengths - new).clamp(min=0)
        read = PrefixState.empty(len(rows))
        if self._state is not None and bool((keep > 0).any()):
            read = self._state.part(rows, keep)
        mask = torch.arange(new) >= new - lengths[:, None]
        self._read(read, ids[:, ids.shape[1] - new :], mask, None)
        return read, known

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; the rows that are not named are forgotten.

        Args:
            rows: their numbers, `rewardsteer.models.prefix_state.NEW` at the places of new ones.
        """
        if not self.forwards:
            return
        self.forwards = [0 if row < 0 else self.forwards[row] for row in rows]
        self.tokens = [0 if row < 0 else self.tokens[row] for row in rows]
        self._select(torch.tensor(list(rows), dtype=torch.long))

    def hold(self, row: int) -> PrefixState | None:
        """What was read of a row, for `restore`; None where nothing was, or it cannot be kept."""
        state = self._state
        return None if state is None or not self._goes_on() else state.copy_of(row)

    def restore(self, held: Mapping[int, PrefixState], *, places: int) -> None:
        """Go on from what was held, at some of ``places`` where new rows come."""
        if len(self.forwards) != places:
            self._state, self.forwards, self.tokens = None, [0] * places, [0] * places
        for place, state in held.items():
            if self._state is not None:
                self._state.place(torch.tensor([place]), state)
            else:
                self._state = state.among(place, places)

    def _select(self, rows: Tensor) -> None:
        if bool((rows < 0).all()):
            self._state = None
        if self._state is not None:
            self._state.select(rows)

    def _advance(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidates: Tensor | None
    ) -> PrefixState:
        """Read what is new of the prefixes, and the candidates if there are any."""
        ids, lengths = prefix_ids.cpu(), attention_mask.cpu().long().sum(dim=1)
        if self._state is not None and len(ids) != len(self._state.ids):
            self._state = None
        if len(self.forwards) != len(ids):
            self.forwards, self.tokens = [0] * len(ids), [0] * len(ids)
        known = torch.zeros_like(lengths)
        grown, stays = self._follow(ids, lengths, known)
        if candidates is not None:
            known *= stays
        if not bool((stays | (known > 0)).any()):
            self._state = None
        extra = 0 if candidates is None else candidates.shape[1]
        if self._state is not None and grown + extra and bool(stays.any()):
            # Rows that are read apart take part, so that the others need not be taken out of the
            # cache and put back; what comes of it is overwritten.
            new = ids[:, ids.shape[1] - grown :]
            passes = self._read(self._state, new, torch.ones_like(new).bool(), candidates)
            self._count(stays, grown + extra - known, lengths, passes)
        if not bool(stays.all()):
            passes = self._enter((~stays).nonzero().squeeze(1), ids, lengths, candidates)
            self._count(~stays, lengths + extra - known, lengths, passes)
        assert self._state is not None
        return self._state

    def _follow(self, ids: Tensor, lengths: Tensor, known: Tensor) -> tuple[int, Tensor]:
        """Columns to read of the rows that did nothing but grow, and which ``[B]`` these are.

        ``known [B]`` receives how many of the tokens that a row is going to read were read before:
        of these columns, or, where it is read apart, of all its tokens.
        """
        if self._state is None:
            return 0, torch.zeros_like(lengths).bool()
        grown, stays = self._state.growth(ids, lengths)
        told = self._state.lengths > 0
        if not bool((stays | ~told).all()):
            # Rows may have changed places, as in beam search.
            origins = self._state.origins(ids, lengths)
            if self._state.probed is None and bool((told & (origins < 0)).any()):
                return self._go_back(ids, lengths, known)
            self._select(origins)
            if self._state is None:
                return 0, torch.zeros_like(stays)
            grown, stays = self._state.growth(ids, lengths)
        if self._state.probed is not None and grown:
            stays &= self._state.settle(ids[:, -grown])
            grown -= 1
        elif self._state.probed is not None:
            self._state.drop_candidates()
        return grown, stays

    def _go_back(self, ids: Tensor, lengths: Tensor, known: Tensor) -> tuple[int, Tensor]:
        """Rewind rows that went back, so that they grow with the others: by at least a token, which
        is read again where it is known, because its answer is not. Rows that went on from there by
        more than others are read apart, from where they are known; see `_follow`."""
        state = self._state
        assert state is not None
        shared = state.shared(torch.arange(len(ids)), ids, lengths)
        same = (shared == lengths) & (state.lengths == lengths)
        new = lengths - shared.clamp(max=lengths - 1)
        columns = min(multimode(new[shared > 0].tolist())) if bool((shared > 0).any()) else 1
        stays = (lengths > columns) & (new <= columns)
        rows = (stays & (state.lengths != lengths - columns)).nonzero().squeeze(1)
        if len(rows):
            state.rewind(rows, lengths[rows] - columns)
        read = torch.where(same, 0, new)
        known += torch.where(stays, columns - read, lengths - read)
        return columns, stays

    def _enter(
        self, rows: Tensor, ids: Tensor, lengths: Tensor, candidates: Tensor | None
    ) -> int:
        """Read rows in a batch of their own, anew if there are candidates, and put them into their
        places; in how many passes."""
        passes = 1
        if candidates is None and self._state is not None:
            fresh, _ = self._take_up(rows, ids[rows], lengths[rows])
        else:
            width = int(lengths[rows].max())
            mask = torch.arange(width) >= width - lengths[rows, None]
            fresh = PrefixState.empty(len(rows))
            passes = self._read(
                fresh, ids[rows, ids.shape[1] - width :], mask,
                None if candidates is None else candidates[rows],
            )
        if self._state is None:
            self._state = fresh
        else:
            self._state.place(rows, fresh)
        return passes

    def _read(
        self, state: PrefixState, ids: Tensor, mask: Tensor, candidates: Tensor | None
    ) -> int:
        """Add new columns to a state, and candidates behind them; in how many forward passes."""
        start, new = state.ids.shape[1], ids.shape[1]
        if candidates is not None and new > _TOGETHER:
            self._read(state, ids, mask, None)
            return 1 + self._read(state, ids[:, :0], mask[:, :0], candidates)
        state.append(ids, mask)
        positions = _positions(state.mask)[:, start:]
        if candidates is None and not self._goes_on():
            state.answer = self._whole(state.ids, state.lengths)
            return 1
        if candidates is None:
            state.answer = self._forward(state.cache, ids, state.mask, positions, keep=1)[:, 0]
            return 1
        count = candidates.shape[1]
        after = state.lengths[:, None].expand(-1, count)
        states = self._forward(
            state.cache,
            torch.cat([ids, candidates], dim=1),
            tree_mask(state.mask, start, count, self.module.dtype),
            torch.cat([positions, after], dim=1),
            keep=count + (new > 0),
        )
        if new:
            state.answer = states[:, 0]
        state.probed = (candidates, states[:, -count:])
        return 1

    def _goes_on(self) -> bool:
        if self._cached is None:
            self._cached = reads_cached(self.module)
        return self._cached

    def _whole(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Answers ``[B, X]`` at the ends of left-padded rows ``[B, T]``, each read anew.

        They are padded on the right, where no token of theirs sees it: recurrent layers know no
        mask, or not all of them.
        """
        last = (lengths - 1).clamp(min=0)
        rows = from_the_left(ids, lengths, int(last.max()) + 1)
        options: dict[str, Any] = {"input_ids": self._there(rows)}
        if self._takes_keep:
            columns, last = last.unique(return_inverse=True)
            options["logits_to_keep"] = self._there(columns)
        output = self.module(use_cache=False, **options)
        states: Tensor = output.logits if "logits" in output else output.last_hidden_state
        last = last.to(states.device)
        return states[torch.arange(len(last), device=states.device), last]

    def _forward(
        self, cache: Any, ids: Tensor, mask: Tensor, positions: Tensor, keep: int
    ) -> Tensor:
        """One forward pass over new columns; answers ``[B, keep, X]`` at the last ones."""
        options: dict[str, Any] = {"input_ids": self._there(ids)}
        if self._takes_positions:
            options["position_ids"] = self._there(positions)
        if self._takes_keep:
            options["logits_to_keep"] = keep
        # Without a mask, attention takes its faster path.
        if mask.is_floating_point() or not bool(mask.all()):
            options["attention_mask"] = self._there(mask if mask.dim() == 4 else mask.long())
        output = self.module(past_key_values=cache, use_cache=True, **options)
        states: Tensor = output.logits if "logits" in output else output.last_hidden_state
        return states[:, -keep:]

    def _there(self, tensor: Tensor) -> Tensor:
        """On the model's device, without waiting for what the device is doing."""
        return tensor.to(self.module.device, non_blocking=True)

    def _count(self, rows: Tensor, read: Tensor, lengths: Tensor, passes: int = 1) -> None:
        """Rows ``[B]`` took part in passes in which each read so many new tokens ``[B]``, or its
        whole length where nothing is cached."""
        if not self._goes_on():
            read = torch.where(read > 0, lengths, 0)
        for row, (counted, tokens) in enumerate(zip(rows.tolist(), read.tolist(), strict=True)):
            self.forwards[row] += counted * passes if tokens > 0 else 0
            self.tokens[row] += counted * tokens

    def _may_use_tree(self, width: int) -> bool:
        if self._tree is None:
            self._tree = self._goes_on() and takes_tree_masks(self.module)
        window = attention_window(self.module.config)
        # A ready-made mask goes to every layer as it is, so it cannot hide what a window hides.
        return self._tree and (window is None or width + 1 <= window)

    def _probe_one_by_one(self, ids: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        state = self._advance(ids, mask, None)
        longer = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
        positions, answers = _positions(longer)[:, -1:], []
        one = torch.ones(len(ids)).long()
        for column in candidates.split(1, dim=1):
            if self._goes_on():
                answers.append(self._forward(state.cache, column, longer, positions, keep=1))
                state.cache.cut(right=1)
            else:
                rows = torch.cat([state.ids, column], dim=1)
                answers.append(self._whole(rows, state.lengths + 1)[:, None])
            self._count(one.bool(), one, state.lengths + 1)
        return torch.cat(answers, dim=1)


def _positions(mask: Tensor) -> Tensor:
    """Positions ``[B, T]`` that count real tokens only."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def reads_cached(module: Any) -> bool:
    """Whether the model goes on from what it has read as if it read all of it, in a batch of rows
    of different lengths too; found by trying a few tokens once.

    Recurrent layers keep no keys and values: some architectures refuse such a cache, others ignore
    it without a word.
    """
    return capability(module, "cached reading", lambda: try_cache(PrefixReader, module))


def takes_tree_masks(module: Any) -> bool:
    """Whether the model answers right under a tree mask, found by trying a few tokens once.

    Some architectures ignore or refuse ready-made masks (ALiBi biases, fused kernels, recurrent
    layers); the trial compares with ordinary reading, so none of them has to be listed here.
    """
    return capability(module, "tree masks", lambda: try_tree(PrefixReader, module))
