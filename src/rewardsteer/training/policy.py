"""Supervised fine-tuning of a policy on responses, with the stock `transformers.Trainer`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rewardsteer.configuration import Config, save_config
from rewardsteer.data.collate import SftCollator
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import library_versions, save_tokenizer
from rewardsteer.outputs import claim_folder, write_json
from rewardsteer.training.config import LogConfig, OptimiserConfig


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
        dtype: parameter type of a base model.
        seed: of initial weights and order.
    """

    base_model: str | None = None
    architecture: ArchitectureConfig = ArchitectureConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
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

    claim_folder(out, overwrite=overwrite)
    model = build_policy(config, tokenizer)
    save_config(config, out / "config.yaml")
    write_json(out / "run.json", {"versions": library_versions(), "seed": config.seed})
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
    model.save_pretrained(out / "model")
    save_tokenizer(tokenizer, out / "model")
    return out / "model"
