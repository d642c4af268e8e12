"""Our settings in the terms of `transformers.TrainingArguments`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import TrainingArguments

from rewardsteer.devices import has_accelerator
from rewardsteer.errors import ConfigError
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig

logger = logging.getLogger(__name__)

# Settings that have the names and the meaning of transformers'. Sampling is not one: batches are
# made by `rewardsteer.training.batches`.
_SAME = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
    "gradient_checkpointing",
)
# Figures of evaluation of which transformers does not know that lower is better.
_LOWER_IS_BETTER = ("brier", "constraint_violation", "lost_kl")
# Processes that prepare batches for the training process.
_WORKERS = 2


def training_arguments(
    out: Path, optimiser: OptimiserConfig, log: LogConfig, seed: int, *, evaluate: bool,
    keep_best: bool = False, best: str = "accuracy", deterministic: bool = False,
    trainer: Mapping[str, Any] = MappingProxyType({}),
) -> TrainingArguments:
    """Our settings in the terms of `transformers.TrainingArguments`.

    Args:
        out: folder for checkpoints.
        optimiser, log, seed, deterministic: settings.
        evaluate: whether there are rows to evaluate on.
        keep_best: end with the weights of the best checkpoint.
        best: the figure of evaluations that chooses the best.
        trainer: further fields, checked by `check_trainer`; they come last.

    Raises:
        ConfigError: transformers refuses the values, or lacks a library that they need.
    """
    values = {
        "output_dir": str(out),
        **{name: getattr(optimiser, name) for name in _SAME},
        "per_device_eval_batch_size": optimiser.per_device_train_batch_size,
        "adam_beta1": optimiser.betas[0],
        "adam_beta2": optimiser.betas[1],
        "bf16": optimiser.autocast == "bf16",
        "fp16": optimiser.autocast == "fp16",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "eval_strategy": ("steps" if log.eval_steps else "epoch") if evaluate else "no",
        "eval_steps": log.eval_steps or None,
        "save_strategy": "steps" if log.save_steps else "no",
        "save_steps": log.save_steps or 500,
        "save_total_limit": 2,
        "load_best_model_at_end": keep_best,
        # Early stopping uses it too.
        "metric_for_best_model": best if evaluate else None,
        "logging_steps": log.logging_steps,
        # We stop on NaN with the rows named; the filter would hide it.
        "logging_nan_inf_filter": False,
        "report_to": log.report_to or "none",
        # `showing` shows the progress.
        "disable_tqdm": True,
        # Without it, transformers refuses bf16 where there is no accelerator.
        "use_cpu": not has_accelerator(),
        "remove_unused_columns": False,
        "label_names": ["margin"],
        # Batches are prepared while a GPU computes.
        "dataloader_pin_memory": has_accelerator("cuda"),
        "dataloader_num_workers": _WORKERS if has_accelerator() else 0,
        "seed": seed,
        "data_seed": seed,
        "full_determinism": deterministic,
    }
    values |= trainer
    if str(values["metric_for_best_model"]).removeprefix("eval_") in _LOWER_IS_BETTER:
        values["greater_is_better"] = False
    if not evaluate:
        values["eval_strategy"] = "no"
    for name, place in (("eval", "log.eval_steps"), ("save", "log.save_steps")):
        strategy = str(getattr(values[f"{name}_strategy"], "value", values[f"{name}_strategy"]))
        if strategy == "steps" and not getattr(log, f"{name}_steps"):
            raise ConfigError(f"trainer.{name}_strategy=steps needs {place}, which is 0.")
    try:
        return _on_one_device(TrainingArguments(**values))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ConfigError(f"transformers refuses the training settings: {error}") from error


def _on_one_device(arguments: TrainingArguments) -> TrainingArguments:
    """The arguments for one device. With several visible GPUs and no launcher, the Trainer would
    copy the model to all of them and give each the same batch."""
    count, device = arguments.n_gpu, arguments.device
    if count > 1:
        logger.warning(
            "%d GPUs are visible and one process runs, which trains on %s alone; start with "
            "'accelerate launch --config_file launch/ddp.yaml' to use all, or set "
            "CUDA_VISIBLE_DEVICES to choose another", count, device,
        )
        arguments._n_gpu = 1
    return arguments


def keeps_best(log: LogConfig, trainer: Mapping[str, Any]) -> bool:
    """Whether a phase evaluates each of its checkpoints, so that the best can be kept."""
    if "epoch" in (trainer.get("save_strategy"), trainer.get("eval_strategy")):
        evaluates = trainer.get("eval_strategy", "steps" if log.eval_steps else "epoch")
        return bool(evaluates == trainer.get("save_strategy") == "epoch")
    return bool(log.eval_steps and log.save_steps)


def apply_liger(backbone: Any, arguments: TrainingArguments) -> None:
    """Patch a backbone with Liger's kernels, in place. The Trainer would look for them in a reward
    model's wrapper.

    Raises:
        ConfigError: liger-kernel is not installed.
    """
    from transformers.integrations.liger import apply_liger_kernel

    try:
        apply_liger_kernel(backbone, arguments.liger_kernel_config)
    except ImportError as error:
        raise ConfigError(
            "trainer.use_liger_kernel needs liger-kernel, which is not installed; run pip install "
            "liger-kernel, or leave it out."
        ) from error
    arguments.use_liger_kernel = False
