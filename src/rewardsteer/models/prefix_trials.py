"""Trials of incremental reading: does a cache, does a tree mask give what plain reading gives?"""

import logging
from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.capabilities import same_changes, same_states, sample_rows

logger = logging.getLogger(__name__)

# Attention implementations that add a ready-made mask [B, 1, queries, keys] to the scores.
_MASK_TAKING = ("sdpa", "eager")


def try_cache(reader: Any, module: Any) -> bool:
    """See `rewardsteer.models.prefix_reader.reads_cached`; ``reader`` is the class there."""
    *texts, mask = sample_rows(module)
    plain = tuple(_answer(reader, module, ids, mask, cached=False) for ids in texts)
    try:
        cached = tuple(_answer(reader, module, ids, mask, cached=True) for ids in texts)
        fits = same_changes((cached[0], cached[1]), (plain[0], plain[1]), module.dtype)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        logger.debug("The trial of a cache failed: %s", error)
        fits = False
    if not fits:
        logger.warning(
            "%s cannot go on from a cache of keys and values: every step reads whole rows anew, "
            "which gives the same answers more slowly.", type(module).__name__,
        )
    return fits


def _answer(reader: Any, module: Any, ids: Tensor, mask: Tensor, *, cached: bool) -> Tensor:
    """The answer to rows that were read in three steps."""
    opened = reader(module, cached=cached)
    for end in (ids.shape[1] - 3, ids.shape[1] - 2):
        opened.sync(ids[:, :end], mask[:, :end])
    answer: Tensor = opened.sync(ids, mask)
    return answer.float()


def try_tree(reader: Any, module: Any) -> bool:
    """See `rewardsteer.models.prefix_reader.takes_tree_masks`; ``reader`` is the class there."""
    fits = False
    if getattr(module.config, "_attn_implementation", None) in _MASK_TAKING:
        try:
            fits = _compare_tree(reader, module)
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            logger.debug("The trial of a tree mask failed: %s", error)
    if not fits:
        logger.warning(
            "%s with attention %r takes no tree mask: candidates are scored in one forward "
            "each. Load it with attn_implementation='sdpa' if it can.",
            type(module).__name__, getattr(module.config, "_attn_implementation", None),
        )
    return fits


def _compare_tree(reader: Any, module: Any) -> bool:
    size = module.config.get_text_config(decoder=True).vocab_size
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]]) % size
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    # The first candidate of each row has other siblings in the second text.
    texts = torch.tensor([[[6, 7, 8], [8, 6, 9]], [[6, 3, 1], [8, 2, 4]]]) % size
    plain, tree = (
        [reader(module, tree=way).probe(ids, mask, text).float() for text in texts]
        for way in (False, True)
    )
    if any(a.shape != b.shape or not same_states(a, b, module.dtype)
           for a, b in zip(tree, plain, strict=True)):
        return False
    first = [(answers[0][:, 0], answers[1][:, 0]) for answers in (tree, plain)]
    return same_changes(first[0], first[1], module.dtype)
