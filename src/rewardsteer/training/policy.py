"""Supervised fine-tuning of a policy on responses, with the stock `transformers.Trainer`."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from rewardsteer.configuration import Config, save_config
from rewardsteer.data.collate import SftCollator
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import (
    ensure_padding_token,
    library_versions,
    save_tokenizer,
)
from rewardsteer.outputs import claim_folder, read_json, write_json
from rewardsteer.training.config import LogConfig, OptimiserConfig
from rewardsteer.training.precision import saved_dtype
from rewardsteer.training.processes import join

# For collectives of the updates, as in transformers.
_TIMEOUT_S = 1800


class ArchitectureConfig(Config):
    """A small model from scratch.

    Attributes:
        model_type: as transformers names it: ``llama``, ``gpt_neox``, ``gpt2``, …
        options: fields of that configuration class; the vocabulary comes from the tokenizer.
    """

    model_type: str = "llama"
    options: dict[str, Any] = Field(default_factory=dict)


class PolicyConfig(Config):
    """Fine-tuning of a policy.

    Attributes:
        base_model: folder or hub name to start from; None starts from scratch.
        architecture: what to build from scratch when ``base_model`` is None.
        optimiser: see `OptimiserConfig`.
        log: see `LogConfig`.
        dtype: type of a base model's weights while it is trained; ``auto``: as saved. Updates of
            bfloat16 weights are mostly rounded away, so ask for it only to save memory.
        seed: of initial weights and order.
    """

    base_model: str | None = None
    architecture: ArchitectureConfig = ArchitectureConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: int = 0

    @model_validator(mode="after")
    def _stock_trainer(self) -> "PolicyConfig":
        asked = self.optimiser
        if asked.order != "random" or asked.batch_tokens or asked.activation_offload:
            raise ValueError(
                "order, batch_tokens and activation_offload are for training reward models; leave "
                "them out when fine-tuning a policy"
            )
        return self


def build_policy(config: PolicyConfig, tokenizer: Any) -> Any:
    """The model to fine-tune.

    Raises:
        ConfigError: unknown model type or option.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(config.seed)
    if config.base_model is not None:
        return AutoModelForCausalLM.from_pretrained(
            config.base_model, dtype=config.dtype, trust_remote_code=False
        )
    try:
        architecture = AutoConfig.for_model(
            config.architecture.model_type,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config.architecture.options,
        )
        return AutoModelForCausalLM.from_config(architecture)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"The policy architecture cannot be built: {error}") from error


def train_policy(
    config: PolicyConfig, tokenizer: Any, rows: Any, out: Path, *, overwrite: bool = False,
) -> Path:
    """Fine-tune on rows of the SFT set and return the model folder, ``OUT/model``.

    Args:
        config: the settings.
        tokenizer: saved beside the model.
        rows: dataset with ``prompt_ids`` and ``label_ids``; only the label is learned.
        out: output folder, empty unless ``overwrite``.

    Raises:
        ConfigError, OutputError: see `build_policy` and `claim_folder`.
    """
    from transformers import Trainer

    from rewardsteer.training.arguments import training_arguments
    from rewardsteer.training.fit import LogLines
    from rewardsteer.training.showing import showing

    processes, wait = join(_TIMEOUT_S)
    if processes.is_main_process:
        claim_folder(out, overwrite=overwrite)
        save_config(config, out / "config.yaml")
        write_json(out / "run.json", {"versions": library_versions(), "seed": config.seed})
    wait()
    ensure_padding_token(tokenizer)
    model = build_policy(config, tokenizer)
    ensure_padding_token(tokenizer, model)
    arguments = training_arguments(
        out / "checkpoints", config.optimiser, config.log, config.seed, evaluate=False
    )
    arguments.label_names = ["labels"]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=SftCollator(tokenizer.pad_token_id),
        callbacks=[LogLines(out / "metrics.jsonl", "policy")],
    )
    with showing(trainer, "policy", bar=config.log.progress, lines=config.log.echo):
        trainer.train()
    _save(trainer, config, tokenizer, out / "model")
    wait()
    return out / "model"


def _save(trainer: Any, config: PolicyConfig, tokenizer: Any, folder: Path) -> None:
    """Write the model in the type that the base model was saved in. Every process calls this, as
    all may hold a part; the first one writes."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    dtype = torch.float32 if config.base_model is None else saved_dtype(config.base_model)
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Tied weights stay tied.
    cast: dict[Any, torch.Tensor] = {}
    for value in weights.values():
        cast.setdefault((value.data_ptr(), value.shape), value.to(dtype))
    model.save_pretrained(folder, state_dict={
        name: cast[value.data_ptr(), value.shape] for name, value in weights.items()
    })
    settings = read_json(folder / "config.json")
    write_json(folder / "config.json", settings | {"dtype": str(dtype).removeprefix("torch.")})
    save_tokenizer(tokenizer, folder)
