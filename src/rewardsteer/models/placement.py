"""The device that a Hugging Face model is loaded onto."""

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewardsteer.devices import choose_device, computes_bfloat16_on_cpu

logger = logging.getLogger(__name__)


def placed(
    source: str | Path, device: str | torch.device | None, options: dict[str, Any]
) -> tuple[torch.device | None, dict[str, Any]]:
    """The device to move a loaded model to, and the options to load it with.

    A model that is dispatched by a device map or quantized cannot be moved after loading: the first
    stays where the map puts it, the second is loaded onto its device. The device is then None.

    Args:
        source: a model folder or hub name.
        device: a name or a device; None: the model stays where transformers puts it.
        options: of ``from_pretrained``. A ``device_map`` wins over a device of ``auto``.

    Raises:
        ConfigError: there is no such device.
    """
    if options.get("device_map") is not None:
        return None, options
    chosen = None if device is None else choose_device(device)
    if chosen is None:
        return None, options
    settings = _settings(source)
    quantized = options.get("quantization_config") or settings.get("quantization_config")
    if quantized is not None:
        return None, options | {"device_map": {"": chosen}}
    dtype = options.get("dtype") or settings.get("dtype") or settings.get("torch_dtype")
    if chosen.type == "cpu" and dtype in ("bfloat16", torch.bfloat16):
        _say_slow()
    return chosen, options


def working_device(layer: nn.Linear) -> torch.device:
    """The device on which a layer computes. Under a hook of accelerate its weights may be kept on
    the disk or in the computer's memory."""
    hooked = getattr(getattr(layer, "_hf_hook", None), "execution_device", None)
    return layer.weight.device if hooked is None else torch.device(hooked)


def put_beside(layer: nn.Linear, own: nn.Module) -> nn.Module:
    """A module on the device on which a layer computes. Under a device map its linear layers move
    their inputs there, as the layer's hook does, since states may come from another device."""
    place = working_device(layer)
    if hasattr(layer, "_hf_hook"):
        from accelerate.hooks import AlignDevicesHook, add_hook_to_module

        for one in own.modules():
            if isinstance(one, nn.Linear):
                add_hook_to_module(one, AlignDevicesHook(execution_device=place))
    return own.to(place)


def _settings(source: str | Path) -> dict[str, Any]:
    """The contents of config.json; empty where it cannot be read."""
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(str(source))
    except (OSError, ValueError):
        return {}  # loading says what is wrong
    # A damaged file may hold something else; loading says so.
    return config if isinstance(config, dict) else {}


@functools.cache
def _say_slow() -> None:
    """Once a process: 6 times as long was measured for a forward pass of 2,048 tokens."""
    if not computes_bfloat16_on_cpu():
        logger.warning(
            "This CPU has no bfloat16 instructions: in float32 the model would be several times "
            "as fast (dtype float32)."
        )
