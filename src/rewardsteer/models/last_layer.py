"""The last layer at some places alone, mostly the ends of rows, for who needs no other states.

A reward of a whole row is read off the state of its last token. The last layer's queries and its
feed-forward part then serve no one at all other tokens, whose keys and values alone count. With the
hidden states of a column or two instead of all, a model of 2 layers has a third less to compute,
one of 32 layers a fiftieth; in training too, forwards and backwards.
"""

import copy
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rewardsteer.models.capabilities import capability, same_states, shares_capabilities
from rewardsteer.models.sharding import is_spread

logger = logging.getLogger(__name__)

# A `rewardsteer.models.reward_model.RewardModel`, which itself reads this way.
Model = TypeVar("Model", bound=Any)

_NAME = "rewardsteer_ends"
_COLUMNS = "rewardsteer_columns"


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa`` for the queries of some columns; zeros ``[R, T, H, E]`` elsewhere."""
    columns: Tensor = getattr(module, _COLUMNS)
    rows = torch.arange(len(columns), device=columns.device)[:, None]
    width, seen = query.shape[2], key.shape[2]
    if attention_mask is None:
        # Without a mask attention is causal, and what is read follows what is cached.
        places = torch.arange(seen, device=columns.device)
        mask = (places <= columns[:, :, None] + seen - width)[:, None]
    else:
        mask = attention_mask.expand(len(query), -1, -1, -1)[rows, :, columns].transpose(1, 2)
    # An index before and one after a slice come out in front.
    some = query[rows, :, columns].transpose(1, 2)
    found, _ = sdpa_attention_forward(
        module, some, key, value, mask, **(options | {"is_causal": False})
    )
    states = found.new_zeros(len(query), width, *found.shape[2:])
    states[rows, columns] = found
    return states, None


AttentionInterface.register(_NAME, attention)


def at_places(model: Model, places: Tensor) -> Model:
    """The same model, the last layer's feed-forward part at work at some places of the next batch
    alone: the states of others mean nothing. It shares all weights; the model itself is left as it
    is.

    Args:
        model: a reward model that `takes_ends`.
        places: ``[N]``, row · width + column, none of them twice.

    Raises:
        LookupError: the backbone has no list of its layers.
    """
    name = f"{_last_layer(model)}.mlp"
    view = _shallow(model, [name])
    shares_capabilities(view.backbone, model.backbone)
    _narrow(view.get_submodule(name), places)
    return view


def at_ends(model: Model, columns: Tensor, width: int) -> Model:
    """As `at_places`, and attention too works at columns ``[R, C]`` of rows of a width alone; for
    reading without gradients."""
    rows = torch.arange(len(columns), device=columns.device)[:, None]
    name = _last_layer(model)
    attending = [
        f"{name}.{inner}" for inner, module in model.get_submodule(name).named_modules()
        if hasattr(module, "is_causal") and hasattr(module, "config")
    ]
    view = _shallow(model, [f"{name}.mlp", *attending])
    shares_capabilities(view.backbone, model.backbone)
    for path in attending:
        module = view.get_submodule(path)
        module.config = copy.copy(module.config)
        module.config._attn_implementation = _NAME
        setattr(module, _COLUMNS, columns)
    _narrow(view.get_submodule(f"{name}.mlp"), (rows * width + columns).flatten())
    return view


def _narrow(module: nn.Module, places: Tensor) -> None:
    """Have a module that takes every token by itself take those at the places, and give zeros
    elsewhere."""
    shape = torch.Size()

    def narrow(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal shape
        shape = inputs[0].shape[:-1]
        return (inputs[0].flatten(0, 1)[None, places], *inputs[1:])

    def widen(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        states = output.new_zeros(shape.numel(), output.shape[-1])
        states[places] = output[0]
        return states.view(*shape, -1)

    module.register_forward_pre_hook(narrow)
    module.register_forward_hook(widen)


def _shallow(module: Any, paths: Sequence[str]) -> Any:
    """A module that shares all with another one, but for copies of its own of the submodules on
    the way to some."""
    # Not the class's own: FSDP2's gives modules that are no longer sharded.
    twin = object.__new__(type(module))
    twin.__dict__ = module.__dict__.copy()
    for kept in ("_modules", "_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[kept] = twin.__dict__[kept].copy()
    for name in {path.partition(".")[0] for path in paths if path}:
        inner = [path.partition(".")[2] for path in paths if path.partition(".")[0] == name]
        twin._modules[name] = _shallow(module._modules[name], inner)
    return twin


def takes_ends(model: Any) -> bool:
    """Whether a model gives the same states at the ends of rows, found by trying a few tokens once.

    It must be made of layers with an attention that may be chosen, here ``sdpa``, and a
    feed-forward part ``mlp`` that takes every token by itself.
    """
    return capability(model.backbone, "last layer at ends", lambda: _tried(model))


def _tried(model: Any) -> bool:
    fits = model.backbone.config._attn_implementation == "sdpa" and _trial(model)
    if not fits:
        logger.debug("the last layer of %s reads all tokens", type(model.backbone).__name__)
    return fits


def _last_layer(model: Any) -> str:
    """The name of the last of the backbone's layers."""
    config = model.backbone.config.get_text_config(decoder=True)
    lists = {
        child for child in model.backbone.children()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    }
    for name, module in model.named_modules():
        if module in lists:
            return f"{name}.{config.num_hidden_layers - 1}"
    raise LookupError(f"{type(model.backbone).__name__} has no list of its layers")


@torch.no_grad()
def _trial(model: Any) -> bool:
    if any(is_spread(parameter) for parameter in model.parameters()):
        return False
    config = model.backbone.config.get_text_config(decoder=True)
    size = min(config.vocab_size, 97)
    ids = torch.tensor([[5, 11, 23, 7, 2, 13], [31, 3, 37, 41, 43, 17]], device=model.device) % size
    padded = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]], device=model.device)
    columns = torch.tensor([[1, 2], [4, 5]], device=model.device)
    rows = torch.arange(2, device=model.device)[:, None]
    training = model.training
    try:
        model.eval()
        for mask in (None, padded):
            plain = model.hidden_states(ids, mask)[rows, columns].float()
            view = at_ends(model, columns, ids.shape[1])
            ends = view.hidden_states(ids, mask)[rows, columns].float()
            if not same_states(ends, plain, model.backbone.dtype):
                return False
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        logger.debug("The trial of the last layer at the ends of rows failed: %s", error)
        return False
    finally:
        model.train(training)
    return True
