"""The attention of packed rows that skips what their block mask hides, as transformers calls it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewardsteer.kernels.pair_packing import SEGMENTS
from rewardsteer.kernels.segment_attention import segment_attention
from rewardsteer.models.reward_model import RewardModel


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:
    """As transformers' ``sdpa``, and where segments ``[1, 1, S, 5]`` stand in the mask's place,
    those and nothing else.

    Raises:
        ValueError: the model asks for something that segments do not have (dropout of attention
            weights, a bias by position).
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output
    if dropout:
        raise ValueError("segments have no dropout of attention weights")
    if options.get("position_bias") is not None:
        raise ValueError("segments have no bias by position")
    groups = query.shape[1] // key.shape[1]
    states = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    # As autocast does for torch's own attention.
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        states = (states[0].to(narrow), states[1].to(narrow), states[2].to(narrow))
    found = segment_attention(*states, attention_mask[0, 0].tolist(), scaling)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(SEGMENTS, attention)
AttentionMaskInterface.register(SEGMENTS, sdpa_mask)


@contextlib.contextmanager
def segments_read(model: RewardModel) -> Iterator[None]:
    """Within it, a model whose attention is ``sdpa`` also takes batches packed in segments."""
    carrier = model.carrier
    before = carrier.config._attn_implementation
    carrier.set_attn_implementation(SEGMENTS)
    try:
        yield
    finally:
        carrier.set_attn_implementation(before)
