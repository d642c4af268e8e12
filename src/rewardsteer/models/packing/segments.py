"""Attention over packed rows on a CPU that computes what the block mask leaves, nothing else.

A *segment* is a run of tokens that see one another causally and, all of them, a beginning that
stands elsewhere in the same row: the second response of a pair sees its prompt. Its attention is
two plain attentions, over itself and over its beginning, merged by their log-sum-exp. Given the
merged output and log-sum-exp, the backward pass of each is that of the whole restricted to its
keys, so both directions run in torch's flash attention, which skips what is not causal.

An update of Bradley-Terry with prompts of 128 tokens, one core, against the dense mask: 4 layers x
256, responses of 64 / 256 / 512 tokens, 12 / 26 / 28 % less time; 8 layers x 512, 64 tokens, 4 %.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewardsteer.models.packing.mask import SEGMENTS

# Row of the batch, first column and the one after the last, and the same of the beginning.
Segment = tuple[int, int, int, int, int]

# Queries of a long segment are taken so many at a time: flash attention then computes fewer
# products on the wrong side of the diagonal, from 576 tokens on 10 to 15 % less time in all.
_QUERIES = 256

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def segment_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment],
    scale: float | None = None,
) -> Tensor:
    """Attention outputs ``[P, H, W, C]`` of the tokens in segments; zeros elsewhere. On a CPU.

    Args:
        query, key, value: ``[P, H, W, C]``: P packed rows of width W, H heads, C channels a head.
        segments: each token at most in one.
        scale: of the products; None: 1 / √C.
    """
    output: Tensor = _SegmentAttention.apply(query, key, value, segments, scale)
    return output


# Row, queries, and the keys that they see, each with whether causally.
_Piece = tuple[slice, slice, list[tuple[slice, bool]]]


def _pieces(segments: Sequence[Segment]) -> Iterator[_Piece]:
    """Runs of queries, each of which sees all of the same keys but for those of its own run."""
    for row, start, end, first, last in segments:
        step = _QUERIES if end - start > 2 * _QUERIES else end - start
        for begin in range(start, end, step):
            queries = slice(begin, min(begin + step, end))
            before = [slice(first, last), slice(start, begin)]
            yield slice(row, row + 1), queries, [
                (queries, True), *((keys, False) for keys in before if keys.start < keys.stop)
            ]


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment],
        scale: float | None,
    ) -> Tensor:
        rows, heads, width, channels = query.shape
        # Laid out as the caller reads it next: all heads of a token together.
        output = query.new_zeros(rows, width, heads, channels).transpose(1, 2)
        total = query.new_zeros(rows, heads, width, dtype=torch.promote_types(
            query.dtype, torch.float32
        ))
        for row, queries, seen in _pieces(segments):
            parts = [
                _flash(
                    query[row, :, queries], key[row, :, keys], value[row, :, keys], 0.0, causal,
                    scale=scale,
                )
                for keys, causal in seen
            ]
            found, sums = parts[0]
            for other, other_sums in parts[1:]:
                both = torch.logaddexp(sums, other_sums)
                share = (sums - both).exp()[..., None].to(found.dtype)
                found, sums = torch.lerp(other, found, share), both
            output[row, :, queries], total[row, :, queries] = found, sums
        ctx.save_for_backward(query, key, value, output, total)
        ctx.segments, ctx.scale = segments, scale
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, total = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for row, queries, seen in _pieces(ctx.segments):
            for keys, causal in seen:
                parts = _flash_backward(
                    grad_output[row, :, queries], query[row, :, queries], key[row, :, keys],
                    value[row, :, keys], output[row, :, queries], total[row, :, queries],
                    0.0, causal, scale=ctx.scale,
                )
                for grad, columns, part in zip(grads, (queries, keys, keys), parts, strict=True):
                    grad[row, :, columns] += part
        return *grads, None, None


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
def segments_read(model: Any) -> Iterator[None]:
    """Within it, a model whose attention is ``sdpa`` also takes batches packed in segments."""
    carrier = model.carrier
    before = carrier.config._attn_implementation
    carrier.set_attn_implementation(SEGMENTS)
    try:
        yield
    finally:
        carrier.set_attn_implementation(before)
