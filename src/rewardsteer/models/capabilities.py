"""Capability checks: what a model can do is tested once on a few tokens, and remembered.

Architectures are not listed. A fast path is used where it gives the same states or logits as a
plain forward pass; elsewhere the plain pass is used, which is slower and equally correct.
"""

import logging
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rewardsteer.models.agreement import disagreement, same_states, working_dtype
from rewardsteer.models.backbone import accepts

logger = logging.getLogger(__name__)

T = TypeVar("T")

# By module, then by capability, attention implementation and dtype.
_known: "weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Any]]" = weakref.WeakKeyDictionary()

# Attention implementations that add a ready-made mask [B, 1, queries, keys] to the scores.
_TAKES_DENSE_MASK = ("sdpa", "eager")


def supports_left_padding(backbone: Any) -> bool:
    """Whether left-padded rows have the same states as each row alone. Recurrent layers process
    padding as well, unless they respect the mask."""
    return capability(backbone, "left padding", lambda: _try_left_padding(backbone))


def is_causal(backbone: Any) -> bool:
    """Whether the state of a token depends on no later token, as the reward of a prefix demands.
    Encoders attend to later tokens as well."""
    return capability(backbone, "causal", lambda: _try_causal(backbone))


def supports_prefix_cache(module: Any) -> bool:
    """Whether continuing from a key/value cache gives the same result as a forward pass over whole
    rows, also for a batch of rows of different lengths. Recurrent layers keep no keys and values:
    some architectures refuse such a cache, others ignore it silently."""
    return capability(module, "prefix cache", lambda: _try_prefix_cache(module))


def supports_tree_mask(module: Any) -> bool:
    """Whether candidates under a tree mask get the same result as each candidate alone. Some
    architectures ignore or refuse ready-made masks (ALiBi biases, fused kernels, recurrent
    layers)."""
    return capability(module, "tree mask", lambda: _try_tree_mask(module))


def attention_window(config: Any) -> int | None:
    """The narrowest attention window of any layer, in tokens; None without windows."""
    config = config.get_text_config(decoder=True)
    names = ("sliding_window", "attention_chunk_size")
    windows = [getattr(config, name, None) for name in names]
    return min((window for window in windows if window), default=None)


def capability(module: Any, name: str, probe: Callable[[], T]) -> T:
    """A capability of a model: the result of a probe, which is run once and remembered.

    Args:
        module: the model or backbone.
        probe: runs a few tokens. A model that is changed (other attention, other dtype, autocast)
            is probed again.
    """
    key = (name, getattr(module.config, "_attn_implementation", None), working_dtype(module))
    known = _known.setdefault(module, {})
    if key not in known:
        known[key] = probe()
    return known[key]


def _sample_rows(module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Ids ``[2, T]`` of two texts of the same two lengths, padded on the left, and their mask.

    They differ in the first tokens of every row and end alike. Where layers see a short window
    alone, the rows are longer than it.
    """
    config = module.config.get_text_config(decoder=True)
    size, window = min(config.vocab_size, 97), attention_window(module.config)
    width = 9 if window is None or window > 64 else max(9, window + 3)
    first = (torch.arange(2 * width).view(2, width) * 37 + 5) % size
    second = first.clone()
    second[:, : width - 2] = (first[:, : width - 2] * 3 + 11) % size
    mask = torch.ones_like(first)
    mask[0, :3] = 0
    return first, second, mask


@torch.no_grad()
def _try_causal(backbone: Any) -> bool:
    size = min(backbone.config.get_text_config(decoder=True).vocab_size, 97)
    texts = torch.tensor([[5, 11, 23, 7, 2, 13], [5, 11, 23, 7, 41, 29]]) % size
    training = backbone.training
    try:
        backbone.eval()
        states = backbone(input_ids=texts.to(backbone.device)).last_hidden_state[:, :4].float()
    finally:
        backbone.train(training)
    return same_states(states[0], states[1], working_dtype(backbone))


def _try_left_padding(backbone: Any) -> bool:
    *texts, mask = (one.to(backbone.device) for one in _sample_rows(backbone))
    takes = accepts(backbone, "position_ids")
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if takes else {}
    length, training = int(mask[0].sum()), backbone.training

    def padded(text: int) -> Tensor:
        output = backbone(
            input_ids=texts[text], attention_mask=mask, use_cache=False, **positions
        )
        states: Tensor = output.last_hidden_state[0, -length:]
        return states

    def alone(text: int) -> Tensor:
        output = backbone(input_ids=texts[text][:1, -length:], use_cache=False)
        states: Tensor = output.last_hidden_state[0]
        return states

    try:
        backbone.eval()
        return disagreement(padded, alone, working_dtype(backbone)) is None
    finally:
        backbone.train(training)


def _try_prefix_cache(module: Any) -> bool:
    from rewardsteer.models.prefix_reader import PrefixReader

    *texts, mask = _sample_rows(module)

    def grown(text: int, *, cached: bool = True) -> Tensor:
        """The answer after three steps, of which the second adds two tokens."""
        reader, width = PrefixReader(module, cached=cached), mask.shape[1]
        for end in (width - 3, width - 1, width):
            answer = reader.step(texts[text][:, :end], mask[:, :end])
        return answer

    fits = disagreement(
        grown, lambda text: grown(text, cached=False), working_dtype(module)
    ) is None
    if not fits:
        logger.warning(
            "%s cannot continue from a cache of keys and values: rows are read whole, at every "
            "step of decoding too, which gives the same answers more slowly.",
            type(module).__name__,
        )
    return fits


def _try_tree_mask(module: Any) -> bool:
    from rewardsteer.models.prefix_reader import PrefixReader

    attention = getattr(module.config, "_attn_implementation", None)
    size = module.config.get_text_config(decoder=True).vocab_size
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]]) % size
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    # The first candidate of each row has other siblings in the second text.
    texts = torch.tensor([[[6, 7, 8], [8, 6, 9]], [[6, 3, 1], [8, 2, 4]]]) % size

    def answers(tree: bool) -> Callable[[int], Tensor]:
        return lambda text: PrefixReader(module, tree=tree).score_candidates(ids, mask, texts[text])

    def first(tree: bool) -> Callable[[int], Tensor]:
        return lambda text: answers(tree)(text)[:, 0]

    fits = attention in _TAKES_DENSE_MASK and all(
        disagreement(which(True), which(False), working_dtype(module)) is None
        for which in (answers, first)
    )
    if not fits:
        logger.warning(
            "%s with attention %r takes no tree mask: candidates are scored in one forward "
            "each. Load it with attn_implementation='sdpa' if it can.",
            type(module).__name__, attention,
        )
    return fits
