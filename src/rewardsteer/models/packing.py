"""Whether packed rows mean to a model what the rows alone mean, and what packing costs it."""

import inspect
import logging

import torch

from rewardsteer.data.packing import pack
from rewardsteer.kernels.pair_packing import MASK_TAKING
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.sharding import is_spread
from rewardsteer.models.tree_mask import attention_window
from rewardsteer.tensors import Packing

logger = logging.getLogger(__name__)

def attention_cost(model: RewardModel) -> float:
    """What a query-key pair of attention costs, in tokens that pass through the layers.

    Forward, a token costs two operations a weight, a pair four a layer and attention channel.
    """
    config = model.backbone.config.get_text_config(decoder=True)
    embeddings = {id(table.weight) for table in model.backbone.modules()
                  if isinstance(table, torch.nn.Embedding)}
    weights = sum(p.numel() for p in model.backbone.parameters() if id(p) not in embeddings)
    return 2 * config.hidden_size * config.num_hidden_layers / max(weights, 1)


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
    return _trial(model)


@torch.no_grad()
def _trial(model: RewardModel) -> str | None:
    size = min(model.backbone.config.get_text_config(decoder=True).vocab_size, 97)
    rows = [[token % size for token in row] for row in (
        [5, 11, 23, 7, 2, 13, 17, 3], [5, 11, 23, 7, 19, 29], [31, 3, 37, 41], [31, 3, 43],
    )]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    fields = pack(rows, [[0, 1], [2, 3]], starts=[0] * 4, width=width, attention=0.0, padding=0)
    assert fields is not None, "the rows share their beginnings"
    packing = Packing(**{name: field.to(model.device) for name, field in fields.items()})
    training = model.training
    model.eval()
    try:
        plain = model.hidden_states(ids, None).float()
        packed = model.packed_states(packing).float().flatten(0, 1)[packing.index]
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        logger.info("The trial of packed rows failed: %s", error)
        return f"{type(model.backbone).__name__} refuses the block mask"
    finally:
        model.train(training)
    real = torch.zeros(len(rows), width, dtype=torch.bool, device=model.device)
    for row, tokens in enumerate(rows):
        real[row, : len(tokens)] = True
    plain, packed = plain[real], packed[real]
    # Half precision differs by rounding; a neighbour that is seen differs by far more.
    allowed = 1e-3 if model.backbone.dtype in (torch.float32, torch.float64) else 5e-2
    if bool((packed - plain).norm() <= allowed * plain.norm()):
        return None
    return f"{type(model.backbone).__name__} gives packed rows other states"


def choose_packing(model: RewardModel, longest: int) -> float | None:
    """The attention cost with which batches are packed, or None, with the reason in the log."""
    refusal = packing_refusal(model, longest)
    if refusal is None:
        return attention_cost(model)
    logger.info("rows are padded, not packed: %s", refusal)
    return None


