"""Attention masks in which the candidates after a prefix see the prefix but not each other."""

from typing import Any

import torch
from torch import Tensor

_WINDOWS = ("sliding_window", "attention_chunk_size")


def tree_mask(prefix_mask: Tensor, start: int, candidates: int, dtype: torch.dtype) -> Tensor:
    """Additive mask ``[B, 1, n + K, T + K]`` for the queries: n = T - start new columns of the
    prefix, then K candidates.

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
    allowed[:, :new, :width] = causal & prefix_mask[:, None, :]
    allowed[:, new:, :width] = prefix_mask[:, None, :]
    allowed[:, new:, width:] = torch.eye(candidates, dtype=torch.bool)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype)
    return torch.where(allowed, torch.zeros((), dtype=dtype), hidden)[:, None]


def attention_window(config: Any) -> int | None:
    """The narrowest attention window of any layer, in tokens; None when all see everything."""
    config = config.get_text_config(decoder=True)
    windows = [getattr(config, name, None) for name in _WINDOWS]
    return min((window for window in windows if window), default=None)
