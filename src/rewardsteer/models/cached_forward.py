"""Forward passes over new columns of left-padded rows, with a key/value cache or without.

Whether a model can continue from a cache, and whether it takes a ready-made mask for a tree of
candidates, is tested once. Shapes as in `rewardsteer.models.prefix_reader`.
"""

from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.backbone import accepts
from rewardsteer.models.capabilities import (
    attention_window,
    supports_prefix_cache,
    supports_tree_mask,
)
from rewardsteer.models.prefix_state import PrefixState, from_the_left

# More new columns than this get a forward pass of their own before the candidates: a tree mask
# holds a number for every pair of a new column and a cached one.
_TOGETHER = 256


class CachedForward:
    """A Hugging Face causal LM, whose answers are logits ``[B, T, V]``, or its backbone, whose
    answers are last-layer states ``[B, T, D]``.

    Args:
        module: the model.
        tree: whether it takes a tree mask; None: tested.
        cached: whether it can continue from a cache; else every step is a pass over whole rows
            (recurrent layers). None: tested.
    """

    def __init__(
        self, module: Any, *, tree: bool | None = None, cached: bool | None = None
    ) -> None:
        self.module = module
        self._tree, self._cached = tree, cached
        self._takes_positions = accepts(module, "position_ids")
        self._takes_keep = accepts(module, "logits_to_keep")

    @property
    def uses_cache(self) -> bool:
        """Whether the model continues from its cache."""
        if self._cached is None:
            self._cached = supports_prefix_cache(self.module)
        return self._cached

    def takes_tree(self, width: int) -> bool:
        """Whether candidates after prefixes of so many columns can be scored under a tree mask."""
        if self._tree is None:
            self._tree = self.uses_cache and supports_tree_mask(self.module)
        window = attention_window(self.module.config)
        # A ready-made mask goes to every layer as it is, so it cannot hide what a window hides.
        return self._tree and (window is None or width + 1 <= window)

    def extend(
        self, state: PrefixState, ids: Tensor, lengths: Tensor, candidates: Tensor | None,
        tail: int = 1,
    ) -> int:
        """Add new columns to a state, and candidates after them; returns the number of forward
        passes.

        Args:
            state: of B rows; changed in place.
            ids: ``[B, T]``, the new columns, padded on the left.
            lengths: ``[B]``, tokens of each row with the new ones.
            candidates: ``[B, K]``, which do not see each other.
            tail: number of columns at the end that need answers.
        """
        start, new = state.ids.shape[1], ids.shape[1]
        if candidates is not None and new > _TOGETHER:
            self.extend(state, ids, lengths, None)
            return 1 + self.extend(state, ids[:, :0], lengths, candidates)
        state.ids, state.lengths = torch.cat([state.ids, ids], dim=1), lengths
        if candidates is None and not self.uses_cache:
            state.answer = self.whole(state.ids, lengths)
            return 1
        mask = state.mask
        positions = (lengths[:, None] - new + torch.arange(new)).clamp(min=0)
        if candidates is None:
            state.recent = self.columns(state.cache, ids, mask, positions, keep=tail)
            state.answer = state.recent[:, -1]
            return 1
        count = candidates.shape[1]
        states = self.columns(
            state.cache,
            torch.cat([ids, candidates], dim=1),
            tree_mask(mask, start, count, self.module.dtype),
            torch.cat([positions, lengths[:, None].expand(-1, count)], dim=1),
            keep=count + (new > 0),
        )
        if new:
            state.answer = states[:, 0]
        state.scored = (candidates, states[:, -count:])
        return 1

    def columns(
        self, cache: Any, ids: Tensor, mask: Tensor, positions: Tensor, keep: int
    ) -> Tensor:
        """Answers ``[B, keep, X]`` at the last new columns; the cache is extended by all of them.

        Args:
            cache: of the columns before.
            ids: ``[B, T]``, the new columns.
            mask: ``[B, C]`` over all columns, 1 on real tokens; or a ready-made ``[B, 1, T, C]``.
            positions: ``[B, T]`` of the new columns.
            keep: number of columns that need answers.
        """
        options: dict[str, Any] = {"input_ids": self._there(ids)}
        if self._takes_positions:
            options["position_ids"] = self._there(positions)
        if self._takes_keep:
            options["logits_to_keep"] = keep
        # Without a mask, attention takes its faster path.
        if mask.is_floating_point() or not bool(mask.all()):
            options["attention_mask"] = self._there(mask if mask.dim() == 4 else mask.long())
        output = self.module(past_key_values=cache, use_cache=True, **options)
        return _answers(output)[:, -keep:]

    def whole(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Answers ``[B, X]`` at the ends of left-padded rows ``[B, T]`` without a cache.

        The rows are moved to the left and padded on the right, where no token sees the padding,
        because not all recurrent layers respect a mask.
        """
        last = (lengths - 1).clamp(min=0)
        rows = from_the_left(ids, lengths, int(last.max()) + 1)
        options: dict[str, Any] = {"input_ids": self._there(rows)}
        if self._takes_keep:
            columns, last = last.unique(return_inverse=True)
            options["logits_to_keep"] = self._there(columns)
        states = _answers(self.module(use_cache=False, **options))
        last = last.to(states.device)
        return states[torch.arange(len(last), device=states.device), last]

    def _there(self, tensor: Tensor) -> Tensor:
        """On the model's device, on CUDA without waiting for its queue. Elsewhere the copy might
        read memory that is free again."""
        device = self.module.device
        return tensor.to(device, non_blocking=device.type == "cuda")


def _answers(output: Any) -> Tensor:
    states: Tensor = output.logits if "logits" in output else output.last_hidden_state
    return states


def tree_mask(prefix_mask: Tensor, start: int, candidates: int, dtype: torch.dtype) -> Tensor:
    """Additive mask ``[B, 1, n + K, T + K]`` in which candidates see the prefix but not each other.

    Its queries are the n = T - start new columns of the prefix, then the K candidates.

    Args:
        prefix_mask: ``[B, T]`` bool, True on real tokens.
        start: columns already in the cache.
        candidates: K.
        dtype: of the mask, the model's.
    """
    batch, width = prefix_mask.shape
    new = width - start
    allowed = torch.zeros(batch, new + candidates, width + candidates, dtype=torch.bool)
    causal = torch.arange(width)[None, :] <= torch.arange(start, width)[:, None]
    own = torch.arange(width)[None, :] == torch.arange(start, width)[:, None]
    # Padding sees itself: where a row of scores is −∞ throughout, as it can become in float16, the
    # softmax is NaN, and NaN values reach real tokens even at weight 0.
    allowed[:, :new, :width] = causal & (prefix_mask[:, None, :] | own)
    allowed[:, new:, :width] = prefix_mask[:, None, :]
    allowed[:, new:, width:] = torch.eye(candidates, dtype=torch.bool)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype)
    return torch.where(allowed, torch.zeros((), dtype=dtype), hidden)[:, None]
