"""Whether packed rows have the same states as rows alone, and the costs of packing for a model."""

import contextlib
import logging
from functools import partial

import torch

from rewardsteer.models.agreement import disagreement, working_dtype
from rewardsteer.models.backbone import accepts
from rewardsteer.models.capabilities import attention_window, capability
from rewardsteer.models.packing.mask import SUPPORTS_4D_MASK
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.models.packing.segments import segments_read
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.sharding import is_zero3_sharded
from rewardsteer.tensors import Packing

logger = logging.getLogger(__name__)

# Operations that would take as long as a call of segment attention does whatever its size: 0.07 ms
# forward, measured on a CPU core of 80 billion operations a second.
_CALL = 5e6


def attention_costs(model: RewardModel, *, segments: bool = False) -> PackingCosts:
    """What attention costs, in tokens that pass through the layers.

    Forward, a token costs two operations a weight, a query-key pair four a layer and channel.

    Args:
        model: its shape alone matters.
        segments: attention computes segments.
    """
    config = model.backbone.config.get_text_config(decoder=True)
    embeddings = {id(table.weight) for table in model.backbone.modules()
                  if isinstance(table, torch.nn.Embedding)}
    weights = sum(p.numel() for p in model.backbone.parameters() if id(p) not in embeddings)
    token, layers = 2 * max(weights, 1), config.num_hidden_layers
    return PackingCosts(
        4 * config.hidden_size * layers / token, _CALL * layers / token if segments else None
    )


def why_not_packable(model: RewardModel, longest: int) -> str | None:
    """Why rows of up to so many tokens cannot be packed for a model; None where they can.

    How an architecture handles positions and masks is tested on a few tokens.

    Args:
        model: its weights must be whole (not sharded yet).
        longest: tokens of the longest row.
    """
    config = model.backbone.config
    implementation = config._attn_implementation
    if implementation not in SUPPORTS_4D_MASK:
        return f"attention {implementation!r} takes no block mask"
    if any(is_zero3_sharded(parameter) for parameter in model.parameters()):
        return "its weights were spread over processes while it was loaded"
    if not accepts(model.backbone, "position_ids"):
        return f"{type(model.backbone).__name__} takes no positions"
    window = attention_window(config)
    if window is not None and longest > window:
        return f"its attention window of {window} tokens is shorter than a row of {longest}"
    if getattr(config, "window_size", None) is not None:
        return f"{type(model.backbone).__name__} counts its attention window in columns"
    return capability(
        model.backbone, "packed rows", lambda: _refusal(model, PackingCosts(0.0))
    )


def why_no_segments(model: RewardModel, device: torch.device | None = None) -> str | None:
    """Why a model that takes packed rows cannot read them segment by segment on a device; None
    where it can."""
    implementation, device = model.backbone.config._attn_implementation, device or model.device
    if device.type != "cpu" or model.device.type != "cpu":
        return f"its kernel is for CPUs, not for {device.type}"
    if implementation != "sdpa":
        return f"attention {implementation!r} was chosen"
    with segments_read(model):
        # Rows for which a mask would cost more than all else.
        return capability(
            model.backbone, "segments", lambda: _refusal(model, PackingCosts(1.0, 0.0))
        )


def _refusal(model: RewardModel, costs: PackingCosts) -> str | None:
    """Why packed rows do not have the states of the rows read alone; None if they do."""
    what = "the block mask" if costs.per_kernel_call is None else "the segments"
    training, dtype = model.training, working_dtype(model.backbone)
    reason = None
    try:
        # All rows, and those alone that stay as they are when their siblings are others.
        for kept in (slice(None), slice(1, None, 2)):
            reason = reason or disagreement(
                partial(_packed, model, costs, kept), partial(_alone, model, kept), dtype, what
            )
    finally:
        model.train(training)
    return None if reason is None else f"{type(model.backbone).__name__} {reason}"


def _rows(model: RewardModel, text: int) -> list[list[int]]:
    """Two pairs of rows that begin alike; in each text the first and the third row differ."""
    size = min(model.backbone.config.get_text_config(decoder=True).vocab_size, 97)
    first, third = [([2, 13, 17, 3], [37, 41]), ([53, 8, 61, 79], [12, 71])][text]
    rows = [[5, 11, 23, 7, *first], [5, 11, 23, 7, 19, 29], [31, 3, *third], [31, 3, 43]]
    return [[token % size for token in row] for row in rows]


def _packed(model: RewardModel, costs: PackingCosts, kept: slice, text: int) -> torch.Tensor:
    """States ``[N, D]`` of the tokens of some rows, read packed."""
    rows = _rows(model, text)
    fields = costs.pack(
        rows, [[0, 1], [2, 3]], starts=[0] * 4, width=max(map(len, rows)), padding=0
    )
    assert fields is not None, "the rows share their beginnings"
    assert ("segments" in fields) == (costs.per_kernel_call is not None)
    packing = Packing(**{name: field.to(model.device) for name, field in fields.items()})
    if costs.per_kernel_call is not None:
        # Training may ask for what evaluation does not: dropout of attention weights.
        with torch.random.fork_rng(devices=[]):
            model.train().packed_states(packing)
    states = model.eval().packed_states(packing).flatten(0, 1)[packing.index]
    return torch.cat([states[row, : len(ids)] for row, ids in enumerate(rows)][kept])


def _alone(model: RewardModel, kept: slice, text: int) -> torch.Tensor:
    """States ``[N, D]`` of the tokens of some rows, each read by itself."""
    model.eval()
    return torch.cat([
        model.hidden_states(torch.tensor([ids], device=model.device), None)[0]
        for ids in _rows(model, text)[kept]
    ])


def choose_packing(
    model: RewardModel, longest: int, device: torch.device | None = None
) -> PackingCosts | None:
    """The costs by which batches are packed, or None, with the reason in the log.

    Where they allow segments, batches need `packed_attention`.

    Args:
        model: tried out where it is now.
        longest: tokens of the longest row.
        device: where batches will be read (a model that will be sharded is moved there later);
            None: where the model is.
    """
    refusal = why_not_packable(model, longest)
    if refusal is not None:
        logger.debug("rows are padded, not packed: %s", refusal)
        return None
    refusal = why_no_segments(model, device)
    if refusal is not None:
        logger.debug("packed rows are read under a mask, not segment by segment: %s", refusal)
    return attention_costs(model, segments=refusal is None)


def packed_attention(
    model: RewardModel, costs: PackingCosts | None
) -> contextlib.AbstractContextManager[None]:
    """The context in which a model reads batches packed by such costs."""
    if costs is None or costs.per_kernel_call is None:
        return contextlib.nullcontext()
    return segments_read(model)


