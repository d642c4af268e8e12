"""Settings of fine-tuning a policy. No torch here."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rewardsteer.configuration import Config, Seed
from rewardsteer.training.shared_config import (
    TRAINING_ALIASES,
    Callbacks,
    LogConfig,
    OptimiserConfig,
    TrainerFields,
)

_EVALUATION = {
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "load_best_model_at_end",
    "metric_for_best_model", "per_device_eval_batch_size",
}


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
        trainer: other fields of `transformers.TrainingArguments` by their own names, see
            `TrainConfig`; those about evaluation have no place here.
        callbacks: ``module:Class`` names, or names with options, see `CallbackConfig`.
        dtype: type of a base model's weights while it is trained; ``auto``: as saved. Updates of
            bfloat16 weights are mostly rounded away, so ask for it only to save memory.
        seed: of initial weights and order.
    """

    aliases: ClassVar[dict[str, str]] = {
        name: place for name, place in TRAINING_ALIASES.items()
        if place not in ("select", "deterministic", "log.eval_steps")
    }

    base_model: str | None = None
    architecture: ArchitectureConfig = ArchitectureConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    trainer: TrainerFields = Field(default_factory=dict)
    callbacks: Callbacks = Field(default_factory=list)
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: Seed = 0

    @field_validator("trainer", mode="before")
    @classmethod
    def _no_evaluation(cls, values: Any) -> Any:
        for name in _EVALUATION & set(values if isinstance(values, dict) else ()):
            raise ValueError(
                f"trainer.{name} is about evaluation, and fine-tuning a policy has none; leave it "
                "out"
            )
        return values

    @model_validator(mode="after")
    def _stock_trainer(self) -> "PolicyConfig":
        asked = self.optimiser
        order = asked.train_sampling_strategy
        if order != "random" or asked.batch_tokens or asked.activation_offload:
            raise ValueError(
                "train_sampling_strategy, batch_tokens and activation_offload are for training "
                "reward models; leave them out when fine-tuning a policy"
            )
        return self
