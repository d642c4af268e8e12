"""Whether what the reward models may come to need fits into the share of memory given to them.

vLLM plans its own memory and does not know of the reward models' caches. A share makes the
promise at the start: with as many rows as vLLM runs together, all as long as they may become, the
reward models stay within it. What a forward pass works with comes on top.
"""

import os
from collections.abc import Collection

import torch

from rewardsteer.decoding.engines.vllm_requests import MEMORY, MOST_CANDIDATES
from rewardsteer.errors import ConfigError
from rewardsteer.models.growing_cache import GrowingCache, room
from rewardsteer.models.scorer import Scorer

_GIB = 2**30


def check_memory(
    scorers: Collection[Scorer], rows: int, length: int, *, utilization: float = 0.0
) -> None:
    """Raise `ConfigError` where the reward models may outgrow their share, if there is one.

    Args:
        scorers: those that are loaded, on one device.
        rows: that are guided together at most; each asks one of the reward models.
        length: of the longest row, in tokens.
        utilization: the share of the same device that vLLM takes for itself.
    """
    given = os.environ.get(MEMORY)
    if not given:
        return
    share = _share(given)
    if share + utilization > 1:
        raise ConfigError(
            f"{MEMORY} = {share:g} and vLLM's gpu_memory_utilization = {utilization:g} are more "
            f"than the whole device; start vLLM with gpu_memory_utilization={1 - share:.2f}."
        )
    weights = sum(weight.nbytes for one in scorers for weight in one.reward_model.parameters())
    row = max(_row_bytes(one, length) for one in scorers)
    total = _total(next(iter(scorers)).reward_model.device)
    if weights + rows * row <= share * total:
        return
    fitting = max(0, int((share * total - weights) // row))
    remedy = (
        f"lower max_num_seqs to {fitting}, lower max_model_len, or raise the share" if fitting
        else "raise the share, lower max_model_len, or hold the reward model in half precision"
    )
    raise ConfigError(
        f"{MEMORY} = {share:g} gives the reward models {share * total / _GIB:.2f} GiB, but they "
        f"may need {(weights + rows * row) / _GIB:.2f}: {weights / _GIB:.2f} for weights, "
        f"{row / _GIB:.4f} for each of max_num_seqs = {rows} rows of max_model_len = {length} "
        f"tokens; {remedy}."
    )


def _share(given: str) -> float:
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"{MEMORY} must be a share of the device's memory above 0 and up to 1, got {given!r}."
        )
    return share


@torch.no_grad()
def _row_bytes(scorer: Scorer, length: int) -> int:
    """Bytes of keys and values that a row of so many tokens can come to, found by reading one."""
    backbone, cache = scorer.reward_model.backbone, GrowingCache()
    backbone(
        input_ids=torch.zeros(1, 1, dtype=torch.long, device=scorer.reward_model.device),
        past_key_values=cache, use_cache=True,
    )
    token = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))
    width = length + (MOST_CANDIDATES if scorer.head_kind == "scalar" else 0)
    return token * (width + room(width))


def _total(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
