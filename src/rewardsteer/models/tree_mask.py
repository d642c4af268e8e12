"""The attention mask for candidates after a prefix."""

import torch
from torch import Tensor


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
    allowed[:, :new, :width] = causal & prefix_mask[:, None, :]
    allowed[:, new:, :width] = prefix_mask[:, None, :]
    allowed[:, new:, width:] = torch.eye(candidates, dtype=torch.bool)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype)
    return torch.where(allowed, torch.zeros((), dtype=dtype), hidden)[:, None]
