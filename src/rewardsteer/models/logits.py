"""Scales and caps that architectures apply to logits after the output layer.

Rewards of a vocabulary head are outputs of the layer itself. So a scale is folded into its weights
and the setting made neutral: before any training the rewards are the policy's logits, and plain
transformers computes the same numbers from the saved folder. A cap cannot be folded and is removed:
rewards are the logits before it, in the same order.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from rewardsteer.errors import CheckpointError
from rewardsteer.models.agreement import same_states
from rewardsteer.models.backbone import backbone_of
from rewardsteer.models.sharding import is_zero3_sharded

logger = logging.getLogger(__name__)

# Settings by which logits are multiplied or divided, and those that cap them.
_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_CAPS = ("final_logit_softcapping", "logits_soft_cap")
# Replaces a cap that may not be None: larger than any logit, and a power of two.
_NO_CAP = float(2**24)


def is_neutral(config: Any) -> bool:
    """Whether a configuration leaves logits as they are."""
    for one in _configs(config):
        if any(getattr(one, name, None) not in (None, 1.0) for name in _SCALES):
            return False
        if any(getattr(one, name, None) not in (None, _NO_CAP) for name in _CAPS):
            return False
    return True


def make_neutral(model: Any) -> float:
    """Make the logits of a causal language model plain products of its output layer, in place.

    Returns:
        The factor for the weights of the output layer that keeps the logits, except for a cap.

    Raises:
        CheckpointError: its logits are no multiple of those products.
    """
    if is_neutral(model.config):
        return 1.0
    for name in _CAPS:
        if any(getattr(one, name, None) is not None for one in _configs(model.config)):
            _set(model, name, None)
            logger.debug("%s caps its logits; rewards are what they are before the cap",
                         type(model).__name__)
    scaled = [
        (name, value) for name in _SCALES
        if (value := _value(model.config, name)) not in (None, 1.0)
    ]
    factor = _factor(model, [value for _, value in scaled])
    for name, _ in scaled:
        _set(model, name, 1.0)
    return factor


def _factor(model: Any, values: list[float]) -> float:
    """The ratio of logits to products of the output layer: the settings give its size, and a few
    tokens show whether logits are multiplied or divided by it."""
    if not values:
        return 1.0
    read = _read(model)
    if read is None:
        # HyperCLOVA X multiplies where others divide.
        divides = "hyperclovax" not in model.config.model_type
        [value] = values
        return 1 / value if _value(model.config, "logits_scaling") == value and divides else value
    products, logits = read
    found = float((products * logits).sum() / (products * products).sum())
    guesses = [math.prod(values), 1 / math.prod(values)]
    factor = min(guesses, key=lambda guess: abs(math.log(abs(found / guess))))
    if not same_states(logits, products * factor, model.dtype):
        raise CheckpointError(
            f"{type(model).__name__} changes its logits after the output layer in a way that "
            "rewardsteer does not know, so no vocabulary head can be put on it; use a scalar head "
            "(head.kind=scalar)."
        )
    return factor


def check_saved(model: Any, folder: Path, name: str) -> None:
    """Refuse a folder in which plain transformers would read other logits than the products of the
    model's output layer.

    Args:
        model: a causal language model, just saved.
        folder: where to; its configuration is read again, the weights are the model's own.
        name: of the folder, for the message.

    Raises:
        CheckpointError: they differ by more than rounding.
    """
    found = _read(model)
    if found is None:
        return
    products, logits = found
    with contextlib.suppress(TypeError, ValueError, RuntimeError, NotImplementedError):
        logits = _twin(model, folder)(input_ids=sample_ids(model), use_cache=False).logits.float()
    if not same_states(logits, products, model.dtype):
        raise CheckpointError(
            f"Plain transformers would read other rewards from {name} than they are, because "
            f"{type(model).__name__} changes its logits after the output layer; use a scalar head "
            "(head.kind=scalar)."
        )


@torch.no_grad()
def _twin(model: Any, folder: Path) -> Any:
    """A model that the library builds from a folder's configuration, with the same tensors."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        twin = type(model)._from_config(
            config, attn_implementation=model.config._attn_implementation
        )
    twin.load_state_dict(model.state_dict(), assign=True, strict=False)
    # Those that are not saved are created by loading; here they are the same.
    for name, buffer in model.named_buffers():
        path, _, last = name.rpartition(".")
        setattr(twin.get_submodule(path), last, buffer)
    return twin.eval()


def sample_ids(model: Any) -> Tensor:
    """A few tokens ``[2, T]``, on the model's device."""
    size = min(model.config.get_text_config(decoder=True).vocab_size, 97)
    ids = torch.tensor([[5, 11, 23, 7, 2, 13], [31, 3, 37, 41, 43, 17]])
    return (ids % size).to(model.device)


def _read(model: Any) -> tuple[Tensor, Tensor] | None:
    """Products of the output layer and logits ``[2, T, V]`` of a few tokens; None where the model
    cannot be read now (spread over processes, or its attention does not run where it is)."""
    if any(is_zero3_sharded(parameter) or parameter.is_meta for parameter in model.parameters()):
        return None
    ids, training = sample_ids(model), model.training
    try:
        model.eval()
        with torch.no_grad():
            states = backbone_of(model)(input_ids=ids, use_cache=False).last_hidden_state
            products = model.get_output_embeddings()(states)
            logits = model(input_ids=ids, use_cache=False).logits
    except (TypeError, ValueError, RuntimeError, NotImplementedError, ImportError) as error:
        logger.debug("logits could not be compared with the output layer's: %s", error)
        return None
    finally:
        model.train(training)
    return products.float(), logits.float()


def _configs(config: Any) -> Iterator[Any]:
    text = config.get_text_config(decoder=True)
    yield config
    if text is not config:
        yield text


def _value(config: Any, name: str) -> float | None:
    found = [getattr(one, name, None) for one in _configs(config)]
    return next((float(value) for value in found if value is not None), None)


def _set(model: Any, name: str, neutral: float | None) -> None:
    """Give a setting its neutral value, where it is kept: configurations, and modules that have
    copied it."""
    for one in _configs(model.config):
        if getattr(one, name, None) is None:
            continue
        if isinstance(getattr(type(one), name, None), property):
            # MiniCPM3: hidden states are divided by hidden_size / dim_model_base.
            one.dim_model_base = one.hidden_size
            continue
        try:
            setattr(one, name, neutral)
        except Exception:
            setattr(one, name, _NO_CAP)
    for module in model.modules():
        if isinstance(module, nn.Module) and isinstance(module.__dict__.get(name), float | int):
            setattr(module, name, _NO_CAP if neutral is None else neutral)
