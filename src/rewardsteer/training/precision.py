"""Precision of training.

Trained weights are float32, whatever type the base model was saved in: a relative update of 5e-6
of a bfloat16 weight is rounded away. ``precision`` is the autocast type of the backbone's products;
``fp32`` is no autocast. Heads, rewards and log-probabilities are computed in float32 under every
engine (`rewardsteer.kernels.precision`). The final model is saved in the base model's type.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewardsteer.kernels.precision import wide_dtype
from rewardsteer.models.sharding import is_zero3_sharded
from rewardsteer.models.start import find_start
from rewardsteer.training.config import TrainConfig

logger = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def loaded_dtype(config: TrainConfig, *, whole: bool) -> torch.dtype | None:
    """The type that a base model is loaded in; None: as saved.

    Under autocast, frozen weights below adapters are loaded as saved, since autocast rounds them
    anyway. A base in the other half-precision type is loaded in autocast's, because float16 and
    bfloat16 do not mix.

    Args:
        config: of the run.
        whole: to be merged and saved, not to be trained.
    """
    autocast = AUTOCAST.get(config.optimiser.autocast)
    if config.lora is None or autocast is None:
        return torch.float32
    other = saved_dtype(config.base_model) not in (torch.float32, autocast)
    return autocast if other and not whole else None


def widen_trainable(model: nn.Module) -> None:
    """Make the trained weights float32 (adapters and heads on a narrow base), in place. Weights
    that DeepSpeed shards are left as they are, because it keeps float32 copies of its own. """
    for parameter in model.parameters():
        trained = parameter.requires_grad and parameter.is_floating_point()
        if trained and not is_zero3_sharded(parameter):
            parameter.data = parameter.data.to(wide_dtype(parameter.dtype))


def saved_dtype(source: str | Path) -> torch.dtype:
    """The type that a model's weights are saved in, of an adapter those of its base; float32 when
    neither its settings nor its files say."""
    from transformers import AutoConfig

    source = find_start(source).source
    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError):
        return torch.float32  # loading says what is wrong
    named = getattr(config, "dtype", None) or getattr(
        config.get_text_config(decoder=True), "dtype", None
    )
    if isinstance(named, torch.dtype):
        return named
    return _first_dtype(Path(source))


def _first_dtype(folder: Path) -> torch.dtype:
    from safetensors import safe_open

    narrow = {"BF16": torch.bfloat16, "F16": torch.float16}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                found = narrow.get(weights.get_slice(name).get_dtype())
                if found is not None:
                    return found
    return torch.float32


def keep_outputs_wide(accelerator: Any) -> None:
    """Let FSDP2 gather weights in the autocast type, but keep gradients and the loss in float32;
    accelerate would round both to that type."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None or plugin.fsdp_version != 2 or plugin.mixed_precision_policy is None:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=plugin.mixed_precision_policy.param_dtype, reduce_dtype=torch.float32
    )


def usable_attention(name: str | None, precision: str) -> str | None:
    """The attention implementation to train a model with: the one that is asked for, or ``sdpa``
    where flex or flash attention has no GPU, or flash attention is not installed or would get
    float32."""
    if name is None or not name.startswith(("flash_attention", "flex_attention")):
        return name
    reason = _no_kernel(name)
    if reason is None and name.startswith("flash") and precision not in AUTOCAST:
        reason = "it takes bf16 and fp16 alone, and optimiser.precision is fp32"
    if reason is None:
        return name
    _say_once(f"attention {name} cannot be used ({reason}); sdpa takes its place")
    return "sdpa"


def _no_kernel(name: str) -> str | None:
    from transformers import utils

    if not torch.cuda.is_available():
        return "there is no CUDA device"
    # flash_attention_2 → is_flash_attn_2_available
    known = getattr(utils, f"is_flash_attn_{name.rpartition('_')[2]}_available", None)
    return "flash-attn is not installed" if known is not None and not known() else None


@functools.cache
def _say_once(line: str) -> None:
    logger.warning("%s", line)
