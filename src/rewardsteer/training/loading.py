"""Building the model of a phase, or of the final export."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import set_seed

from rewardsteer.data.digests import vocabulary_hash
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import ensure_padding_token, load_tokenizer
from rewardsteer.models.heads import LANGUAGE_MODEL_HEAD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.start import check_base_model, check_causal, find_start
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.adapters import add_adapters
from rewardsteer.training.config import QuantizeSettings, TrainConfig
from rewardsteer.training.precision import AUTOCAST, loaded_dtype, usable_attention, widen_trainable
from rewardsteer.training.weights import load_weights

_POLICY_HEAD = HeadConfig(kind=LANGUAGE_MODEL_HEAD)


def check_models(config: TrainConfig, tokenizer: Any) -> None:
    """Refuse a base model, adapters, a quantization or a policy that `build` would refuse, without
    reading weights.

    Raises:
        CheckpointError, ConfigError, MismatchError: as `build`.
    """
    if config.quantize is not None:
        _quantization(config.quantize, config.optimiser.autocast)
        if keeps_adapters(config):
            raise ConfigError(
                "An adapter trained on rounded weights does not fit the base model's own; set "
                "lora.merge=true, or leave quantize out."
            )
    attention = usable_attention(config.attn_implementation, config.optimiser.autocast)
    with deepspeed_loading(spread=False), torch.device("meta"):
        model = RewardModel(
            check_base_model(config.base_model, config.head, attention), config.head
        )
        if config.lora is not None:
            add_adapters(model, config.lora)
    if needs_policy(config):
        _check_policy(config, tokenizer)


def build(
    config: TrainConfig, tokenizer: Any, weights: Path | None = None, *, whole: bool = False
) -> RewardModel:
    """A new head on the base model, with adapters where they are asked for.

    Args:
        config, tokenizer: of the run.
        weights: of an earlier phase's end; None: the initial weights.
        whole: for one process, to be merged: nothing is sharded, and quantized weights are replaced
            by plain ones of the same values.

    Raises:
        CheckpointError: the base model cannot be loaded.
        ConfigError: adapters do not fit it, or a library for the quantization is missing.
    """
    set_seed(config.seed)
    options: dict[str, Any] = {}
    if config.quantize is not None:
        options["quantization_config"] = _quantization(config.quantize, config.optimiser.autocast)
    with deepspeed_loading(spread=not whole):
        model = RewardModel.from_base(
            config.base_model, config.head, dtype=loaded_dtype(config, whole=whole),
            attn_implementation=usable_attention(
                config.attn_implementation, config.optimiser.autocast
            ), again=weights is not None, **options,
        )
        # The base of kept adapters keeps its embeddings; our code uses masks, not padding ids.
        ensure_padding_token(tokenizer, model.carrier, grow=not keeps_adapters(config))
        config.head.head_class.resized(model.carrier, tokenizer)
        if config.quantize is not None:
            (_round if whole else _as_stored)(model)
        if config.disable_dropout:
            without_dropout(model.carrier)
        if config.lora is not None:
            add_adapters(model, config.lora)
        widen_trainable(model)
    if weights is None:
        check_causal(model.carrier, config.base_model)
    if weights is not None:
        load_weights(model, weights)
    if not whole and needs_policy(config):
        model.set_policy(_load_policy(config, tokenizer))
    return model


def keeps_adapters(config: TrainConfig) -> bool:
    """Whether the run ends with adapters of the base model in place of a whole model."""
    return config.lora is not None and not config.lora.merge


def needs_policy(config: TrainConfig) -> bool:
    """Whether an objective takes the value of a prefix under a policy."""
    return any(build_objective(phase.objective).backups for phase in config.phases)


def _check_policy(config: TrainConfig, tokenizer: Any) -> None:
    source = config.policy or config.base_model
    if find_start(source).card is not None:
        raise ConfigError(
            f"Backups under a policy need a causal language model, and {source} is a reward model; "
            "name the policy in the setting policy."
        )
    if vocabulary_hash(load_tokenizer(source)) != vocabulary_hash(tokenizer):
        raise MismatchError(
            f"Backups under a policy need one tokenizer, and that of {source} has other tokens "
            f"than that of {config.base_model}; name a policy with the same tokenizer."
        )
    check_base_model(source, _POLICY_HEAD)


def _load_policy(config: TrainConfig, tokenizer: Any) -> RewardModel:
    """The frozen policy of the settings, whole in every process."""
    policy = RewardModel.from_base(
        config.policy or config.base_model, _POLICY_HEAD,
        attn_implementation=usable_attention(
            config.attn_implementation, config.optimiser.autocast
        ),
    )
    # It gets the same batches, so it needs an embedding for an added padding token.
    ensure_padding_token(tokenizer, policy.carrier, grow=not keeps_adapters(config))
    return policy.to(PartialState().device)


def without_dropout(model: nn.Module) -> None:
    """Remove dropout from a model: from layers, and from modules that hold its rate as a number
    (mostly attention). The configuration is not changed."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
                setattr(module, name, 0.0)


@contextmanager
def deepspeed_loading(*, spread: bool) -> Iterator[None]:
    """Context in which transformers loads models as the DeepSpeed launch file says, with
    ``zero3_init_flag`` sharded from the start; whole if ``spread`` is False. Without it, loading
    depends on whether training arguments were made before, which differs between the first phase
    and later ones."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") != "true":
        yield
        return
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    plugin = DeepSpeedPlugin()
    unset_hf_deepspeed_config()
    if spread and plugin.is_zero3_init_enabled():
        plugin.set_deepspeed_weakref()
    try:
        yield
    finally:
        unset_hf_deepspeed_config()


def _quantization(settings: QuantizeSettings, precision: str) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Quantization needs bitsandbytes, which is not installed; run pip install "
            "'rewardsteer[quantize]', or leave quantize out."
        ) from error
    from transformers import BitsAndBytesConfig

    compute = AUTOCAST.get(precision, torch.float32)
    if settings.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=settings.kind, bnb_4bit_compute_dtype=compute,
        bnb_4bit_use_double_quant=settings.double,
    )


def _as_stored(model: RewardModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights. On CPUs with bf16 instructions it does so at
    the first forward pass outside training, which makes their scales coarser from then on."""
    for module in model.base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _round(model: RewardModel) -> None:
    """Replace quantized layers by plain ones of the same values."""
    model.base = model.carrier.dequantize()
    for module in model.base.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.to(model.base.dtype)
