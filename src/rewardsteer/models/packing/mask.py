"""The mask of packed rows: a token sees its own run of tokens, and the run that this one continues.

With positions that start anew for each response, causal attention under this mask gives every token
the states of its own row read alone: chosen and rejected see their prompt, not each other, and
pairs in one row see nothing of one another.
"""

from typing import Any

import torch
from torch import Tensor

from rewardsteer.tensors import Packing

# The attention that computes a packed row segment by segment, which `segments.py` beside this file
# registers with transformers.
SEGMENTS = "rewardsteer_segments"
# Attention implementations that hand a ready-made mask on to every layer.
SUPPORTS_4D_MASK = ("sdpa", "eager", "flex_attention", SEGMENTS)


def block_mask(packing: Packing, implementation: str, dtype: torch.dtype) -> Any:
    """The mask in the form that an attention implementation takes.

    Args:
        packing: P rows of width W.
        implementation: ``sdpa`` (bool ``[P, 1, W, W]``), ``eager`` (the same, added to the
            scores), ``flex_attention`` (a block mask, whose empty blocks cost nothing) or
            `SEGMENTS` (in place of a mask the segments ``[1, 1, S, 5]``, where there are any).
        dtype: of the additive mask.
    """
    if packing.segments is not None:
        assert implementation == SEGMENTS, "no other attention reads segments"
        return packing.segments[None, None]
    blocks, parents = packing.blocks, packing.parents
    if implementation == "flex_attention":
        return _flex(blocks, parents)
    seen = (blocks[:, :, None] == blocks[:, None, :]) | (parents[:, :, None] == blocks[:, None, :])
    allowed = seen.tril()[:, None]
    if implementation in ("sdpa", SEGMENTS):
        return allowed
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=blocks.device)
    return torch.where(allowed, torch.zeros_like(hidden), hidden)


def _flex(blocks: Tensor, parents: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = blocks[batch, query] == blocks[batch, key]
        above = parents[batch, query] == blocks[batch, key]
        return (query >= key) & (near | above)

    rows, width = blocks.shape
    return create_block_mask(sees, rows, None, width, width, device=str(blocks.device))
