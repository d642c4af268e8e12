"""Incremental reading of left-padded prefixes, holding a key/value cache.

A decoding step asks a model about prefixes that grew by one token. `PrefixReader.sync` reads only
what is new; `PrefixReader.probe` scores K one-token extensions of every prefix in one forward pass
over a tree mask, in which siblings do not see each other, and keeps the cached states of the one
that is taken. Both check what they are given against what was read, so a prefix that changed is
read again instead of answered wrongly.

Shapes: B prefixes, T columns of the left-padded prefixes, K candidates, X hidden or vocabulary
size.
"""

import inspect
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.tree_mask import attention_window, tree_mask

logger = logging.getLogger(__name__)

# Attention implementations that add a ready-made mask [B, 1, queries, keys] to the scores.
_MASK_TAKING = ("sdpa", "eager")
_known: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


class PrefixReader:
    """A model with a cache of what it has read.

    Args:
        module: a Hugging Face causal LM (answers are logits ``[B, V]``) or its backbone (answers
            are last-layer states ``[B, D]``).
        tree: whether `probe` may use one forward over a tree mask; None finds out by trying.

    Attributes:
        forwards: per row, network passes in which it took part.
        tokens: per row, token positions read, padding excluded.
    """

    def __init__(self, module: Any, *, tree: bool | None = None) -> None:
        self.module = module
        self.forwards: list[int] = []
        self.tokens: list[int] = []
        self._tree = tree
        # A peft wrapper passes anything on; what is understood stands in the model within.
        inner = module.get_base_model() if hasattr(module, "get_base_model") else module
        accepted = inspect.signature(inner.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._ids: Tensor | None = None
        self._mask: Tensor | None = None
        self._answer: Tensor | None = None
        self._probed: tuple[Tensor, Tensor] | None = None
        self._forget()

    @torch.no_grad()
    def sync(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answer ``[B, X]`` at the last position of every prefix, reading only what is new.

        Args:
            prefix_ids: ``[B, T]``, padded on the left, at least one real token a row.
            attention_mask: ``[B, T]``, 1 on real tokens.
        """
        ids, mask = prefix_ids.cpu(), attention_mask.cpu().bool()
        start = self._reuse(ids, mask)
        width = ids.shape[1]
        if start == width and self._answer is not None:
            return self._answer
        if start == width:
            start = width - 1
            self._crop_to(start)
        answer = self._read(ids[:, start:], mask, _positions(mask)[:, start:], keep=1)[:, -1]
        self._count(mask[:, start:])
        self._ids, self._mask, self._answer = ids, mask, answer
        return answer

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
        ids, mask = prefix_ids.cpu(), attention_mask.cpu().bool()
        candidates = candidate_ids.cpu()
        if not self._may_use_tree(ids.shape[1]):
            return self._probe_one_by_one(ids, mask, candidates)
        start, (width, count) = self._reuse(ids, mask), (ids.shape[1], candidates.shape[1])
        lengths = mask.sum(dim=1, keepdim=True)
        positions = torch.cat([_positions(mask)[:, start:], lengths.expand(-1, count)], dim=1)
        states = self._read(
            torch.cat([ids[:, start:], candidates], dim=1),
            tree_mask(mask, start, count, self.module.dtype),
            positions,
            keep=count + (start < width),
        )
        self._count(torch.cat([mask[:, start:], torch.ones_like(candidates).bool()], dim=1))
        if start < width:
            self._answer = states[:, -count - 1]
        self._ids, self._mask = ids, mask
        answers = states[:, -count:]
        self._probed = (candidates, answers)
        return answers

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; the rows that are not named are forgotten."""
        if self._ids is None or self._mask is None:
            return
        kept = torch.tensor(list(rows), dtype=torch.long)
        self._ids, self._mask = self._ids[kept], self._mask[kept]
        self.forwards = [self.forwards[row] for row in rows]
        self.tokens = [self.tokens[row] for row in rows]
        there = kept.to(self.module.device)
        self._cache.batch_select_indices(there)
        if self._answer is not None:
            self._answer = self._answer[there]
        if self._probed is not None:
            self._probed = (self._probed[0][kept], self._probed[1][there])

    def _forget(self) -> None:
        from transformers import DynamicCache

        # Without a configuration every layer keeps all it has read, so that sliding-window layers
        # can be cropped too; their masks still hide what lies outside the window.
        self._cache = DynamicCache()
        self._ids = self._mask = self._answer = None
        self._probed = None

    def _reuse(self, ids: Tensor, mask: Tensor) -> int:
        """Cut the cache back to what agrees with the given prefixes; its columns, at most T."""
        if self._ids is not None and len(ids) != len(self._ids):
            self._forget()
        if self._ids is None or self._mask is None:
            if len(self.forwards) != len(ids):
                self.forwards, self.tokens = [0] * len(ids), [0] * len(ids)
            return 0
        self._settle(ids, mask)
        known = self._ids.shape[1]
        width = min(known, ids.shape[1])
        same = self._mask[:, :width] == mask[:, :width]
        same &= (self._ids[:, :width] == ids[:, :width]) | ~mask[:, :width]
        agree = int(same.all(dim=0).long().cumprod(dim=0).sum())
        if agree < known:
            self._crop_to(agree)
        return agree

    def _settle(self, ids: Tensor, mask: Tensor) -> None:
        """After a probe: keep the states of the candidate each prefix took, drop the others."""
        if self._probed is None or self._ids is None or self._mask is None:
            return
        candidates, answers = self._probed
        self._probed = None
        known = self._ids.shape[1]
        taken = candidates == ids[:, known : known + 1]
        if ids.shape[1] <= known or not bool((taken.any(dim=1) & mask[:, known]).all()):
            self._cache.crop(-candidates.shape[1])
            return
        which = taken.long().argmax(dim=1).to(answers.device)
        rows = torch.arange(len(which), device=answers.device)
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)
                mine = which.to(states.device)
                states[:, :, known] = states[rows.to(states.device), :, known + mine]
                setattr(layer, name, states[:, :, : known + 1])
        self._answer = answers[rows, which]
        self._ids = torch.cat([self._ids, ids[:, known : known + 1]], dim=1)
        self._mask = torch.cat([self._mask, mask[:, known : known + 1]], dim=1)

    def _crop_to(self, width: int) -> None:
        assert self._ids is not None
        assert self._mask is not None
        if width == 0:
            self._forget()
            return
        self._cache.crop(width - self._ids.shape[1])
        self._ids, self._mask = self._ids[:, :width], self._mask[:, :width]
        self._answer = None

    def _read(self, ids: Tensor, mask: Tensor, positions: Tensor, keep: int) -> Tensor:
        """One forward pass over new columns; answers ``[B, keep, X]`` at the last ones."""
        device = self.module.device
        options: dict[str, Any] = {}
        if self._takes_positions:
            options["position_ids"] = positions.to(device)
        if self._takes_keep:
            options["logits_to_keep"] = keep
        output = self.module(
            input_ids=ids.to(device),
            attention_mask=(mask if mask.is_floating_point() else mask.long()).to(device),
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        states: Tensor = output.logits if "logits" in output else output.last_hidden_state
        return states[:, -keep:]

    def _count(self, read: Tensor) -> None:
        new = read.sum(dim=1).tolist()
        self.tokens = [old + int(more) for old, more in zip(self.tokens, new, strict=True)]
        self.forwards = [old + 1 for old in self.forwards]

    def _may_use_tree(self, width: int) -> bool:
        if self._tree is None:
            self._tree = takes_tree_masks(self.module)
        window = attention_window(self.module.config)
        # A ready-made mask goes to every layer as it is, so it cannot hide what a window hides.
        return self._tree and (window is None or width + 1 <= window)

    def _probe_one_by_one(self, ids: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        self.sync(ids, mask)
        answers = []
        longer = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = _positions(longer)[:, -1:]
        for column in candidates.split(1, dim=1):
            answers.append(self._read(column, longer, positions, keep=1))
            self._count(longer[:, -1:])
            self._cache.crop(-1)
        return torch.cat(answers, dim=1)


def _positions(mask: Tensor) -> Tensor:
    """Positions ``[B, T]`` that count real tokens only."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def takes_tree_masks(module: Any) -> bool:
    """Whether the model answers right under a tree mask, found by trying three tokens once.

    Some architectures ignore or refuse ready-made masks (ALiBi biases, fused kernels, recurrent
    layers); the trial compares with ordinary reading, so none of them has to be listed here.
    """
    if module not in _known:
        _known[module] = _try(module)
        if not _known[module]:
            logger.warning(
                "%s with attention %r takes no tree mask: candidates are scored in one forward "
                "each. Load it with attn_implementation='sdpa' if it can.",
                type(module).__name__,
                getattr(module.config, "_attn_implementation", None),
            )
    return _known[module]


def _try(module: Any) -> bool:
    if getattr(module.config, "_attn_implementation", None) not in _MASK_TAKING:
        return False
    size = module.config.get_text_config(decoder=True).vocab_size
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]]) % size
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    candidates = torch.tensor([[6, 7, 8], [8, 6, 9]]) % size
    plain = PrefixReader(module, tree=False).probe(ids, mask, candidates).float()
    try:
        tree = PrefixReader(module, tree=True).probe(ids, mask, candidates).float()
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        logger.info("The trial of a tree mask failed: %s", error)
        return False
    # Half precision differs by rounding; a sibling that is seen differs by far more.
    allowed = 1e-3 if module.dtype in (torch.float32, torch.float64) else 5e-2
    if tree.shape != plain.shape:
        return False
    return bool((tree - plain).norm() <= allowed * plain.norm())
