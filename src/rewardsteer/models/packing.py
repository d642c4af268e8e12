"""Whether packed rows mean to a model what the rows alone mean, and what packing costs it."""

import contextlib
import inspect
import logging

import torch

from rewardsteer.data.packing import PackingCosts, pack
from rewardsteer.kernels.pair_packing import MASK_TAKING
from rewardsteer.models.attention import segments_read
from rewardsteer.models.capabilities import attention_window, capability, same_changes, same_states
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.sharding import is_spread
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


def packing_refusal(model: RewardModel, longest: int) -> str | None:
    """Why rows of up to so many tokens cannot be packed for a model; None where they can.

    What an architecture does with positions and masks is tried out on a few tokens, not listed.

    Args:
        model: its weights must be whole (not sharded yet).
        longest: tokens of the longest row.
    """
    config = model.backbone.config
    implementation = config._attn_implementation
    if implementation not in MASK_TAKING:
        return f"attention {implementation!r} takes no block mask"
    if any(is_spread(parameter) for parameter in model.parameters()):
        return "its weights were spread over processes while it was loaded"
    if "position_ids" not in inspect.signature(model.backbone.forward).parameters:
        return f"{type(model.backbone).__name__} takes no positions"
    window = attention_window(config)
    if window is not None and longest > window:
        return f"its attention window of {window} tokens is shorter than a row of {longest}"
    if getattr(config, "window_size", None) is not None:
        return f"{type(model.backbone).__name__} counts its attention window in columns"
    return capability(
        model.backbone, "packed rows", lambda: _trial(model, PackingCosts(0.0))
    )


def segments_refusal(model: RewardModel, device: torch.device | None = None) -> str | None:
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
            model.backbone, "segments", lambda: _trial(model, PackingCosts(1.0, 0.0))
        )


@torch.no_grad()
def _trial(model: RewardModel, costs: PackingCosts) -> str | None:
    name, dtype = type(model.backbone).__name__, model.backbone.dtype
    training = model.training
    found, expected = [], []
    try:
        # The first and the third row, which stand before the others, are others the second time.
        texts = [([2, 13, 17, 3], [37, 41]), ([53, 8, 61, 79], [12, 71])]
        # Segments are tried where the mask of the same rows has passed.
        for siblings in texts[: 1 if costs.call is not None else 2]:
            packed, plain = _both_ways(model, costs, *siblings)
            found.append(packed)
            expected.append(plain)
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        logger.debug("The trial of packed rows failed: %s", error)
        return f"{name} refuses the {_form(costs)} ({error})"
    finally:
        model.train(training)
    kept = slice(1, None, 2)
    alike = all(same_states(torch.cat(ours), torch.cat(theirs), dtype)
                for ours, theirs in zip(found, expected, strict=True))
    untouched = same_changes(
        (torch.cat(found[0][kept]), torch.cat(found[-1][kept])),
        (torch.cat(expected[0][kept]), torch.cat(expected[-1][kept])), dtype,
    )
    return None if alike and untouched else f"{name} gives packed rows other states"


def _both_ways(
    model: RewardModel, costs: PackingCosts, first: list[int], third: list[int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States ``[T, D]`` of each of four rows, packed and read alone; leaves evaluation mode on."""
    size = min(model.backbone.config.get_text_config(decoder=True).vocab_size, 97)
    rows = [[token % size for token in row] for row in (
        [5, 11, 23, 7, *first], [5, 11, 23, 7, 19, 29], [31, 3, *third], [31, 3, 43],
    )]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    fields = pack(rows, [[0, 1], [2, 3]], starts=[0] * 4, width=width, costs=costs, padding=0)
    assert fields is not None, "the rows share their beginnings"
    assert ("segments" in fields) == (costs.call is not None)
    packing = Packing(**{name: field.to(model.device) for name, field in fields.items()})
    if costs.call is not None:
        # Training may ask for what evaluation does not: dropout of attention weights.
        with torch.random.fork_rng(devices=[]):
            model.train().packed_states(packing)
    model.eval()
    plain = model.hidden_states(ids, None).float()
    packed = model.packed_states(packing).float().flatten(0, 1)[packing.index]
    lengths = [len(row) for row in rows]
    return ([packed[row, :end] for row, end in enumerate(lengths)],
            [plain[row, :end] for row, end in enumerate(lengths)])


def _form(costs: PackingCosts) -> str:
    return "block mask" if costs.call is None else "segments"


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
    refusal = packing_refusal(model, longest)
    if refusal is not None:
        logger.debug("rows are padded, not packed: %s", refusal)
        return None
    refusal = segments_refusal(model, device)
    if refusal is not None:
        logger.debug("packed rows are read under a mask, not segment by segment: %s", refusal)
    return attention_costs(model, segments=refusal is None)


def packed_attention(
    model: RewardModel, costs: PackingCosts | None
) -> contextlib.AbstractContextManager[None]:
    """The context in which a model reads batches packed by such costs."""
    if costs is None or costs.call is None:
        return contextlib.nullcontext()
    return segments_read(model)


