"""The section ``trainer`` of the settings: fields of `transformers.TrainingArguments` by their own
names, checked before anything is read. transformers is imported only when the section is used."""

import dataclasses
import importlib
import importlib.util
import typing
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rewardsteer.errors import ConfigError
from rewardsteer.faults import faults
from rewardsteer.quiet import quiet_calls
from rewardsteer.registry import nearest

# Fields that have a setting here already: one name each, so that no two values can contradict.
NAMED_HERE = {
    "learning_rate": "optimiser.learning_rate",
    "per_device_train_batch_size": "optimiser.per_device_train_batch_size",
    "gradient_accumulation_steps": "optimiser.gradient_accumulation_steps",
    "num_train_epochs": "optimiser.num_train_epochs",
    "max_steps": "optimiser.max_steps",
    "lr_scheduler_type": "optimiser.lr_scheduler_type",
    "warmup_steps": "optimiser.warmup_steps",
    "warmup_ratio": "optimiser.warmup_steps",
    "weight_decay": "optimiser.weight_decay",
    "adam_beta1": "optimiser.betas",
    "adam_beta2": "optimiser.betas",
    "max_grad_norm": "optimiser.max_grad_norm",
    "bf16": "optimiser.precision",
    "fp16": "optimiser.precision",
    "gradient_checkpointing": "optimiser.gradient_checkpointing",
    "train_sampling_strategy": "optimiser.train_sampling_strategy",
    "group_by_length": "optimiser.train_sampling_strategy",
    "logging_steps": "log.logging_steps",
    "eval_steps": "log.eval_steps",
    "save_steps": "log.save_steps",
    "report_to": "log.report_to",
    "disable_tqdm": "log.progress",
    "load_best_model_at_end": "select",
    "seed": "seed",
    "data_seed": "seed",
    "full_determinism": "deterministic",
}

_FILES = "the run's folder is given by output_dir= (--out) and laid out by rewardsteer"
_RESUME = "a run must be able to go on from its checkpoints"
_LOSS = "the objectives define the loss and read the batch themselves"
_HUB = "publish the finished model with 'rewardsteer push'"
_LAUNCH = "engines are chosen by a launch file (accelerate launch --config_file launch/FILE.yaml)"
_ROWS = "every row is read once an epoch, on whatever number of processes"
# Fields that would break what rewardsteer sees to itself, and why.
OWNED = {
    "output_dir": _FILES, "do_train": _FILES, "do_eval": _FILES, "do_predict": _FILES,
    "save_only_model": _RESUME, "ignore_data_skip": _RESUME,
    "restore_callback_states_from_checkpoint": _RESUME,
    "resume_from_checkpoint": "give resume=True (--resume) for the newest, or another by its path "
    "(--resume-from-checkpoint)",
    "remove_unused_columns": "the collator reads columns that the model's forward does not name",
    "label_names": _LOSS, "label_smoothing_factor": _LOSS, "prediction_loss_only": _LOSS,
    "include_for_metrics": _LOSS, "batch_eval_metrics": _LOSS, "eval_do_concat_batches": _LOSS,
    "eval_accumulation_steps": _LOSS, "eval_use_gather_object": _LOSS,
    "average_tokens_across_devices": _LOSS, "include_num_input_tokens_seen": _LOSS,
    "include_tokens_per_second": _LOSS,
    "logging_nan_inf_filter": "a loss that is not finite stops the run and names its rows",
    "auto_find_batch_size": "an update would hold other rows; set optimiser.batch_tokens instead",
    "dataloader_drop_last": _ROWS, "length_column_name": _ROWS,
    "accelerator_config": _ROWS, "dispatch_batches": _ROWS, "split_batches": _ROWS,
    "deepspeed": _LAUNCH, "fsdp": _LAUNCH, "fsdp_config": _LAUNCH, "parallelism_config": _LAUNCH,
    "local_rank": _LAUNCH,
    "greater_is_better": "it follows from trainer.metric_for_best_model",
    "use_cache": "training runs no cache",
    **dict.fromkeys((
        "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy",
        "hub_always_push", "hub_revision",
    ), _HUB),
}

# Tracker → the module that must be importable and what installs it.
_TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"), "mlflow": ("mlflow", "mlflow"),
    "comet_ml": ("comet_ml", "comet-ml"), "neptune": ("neptune", "neptune"),
    "azure_ml": ("azureml", "azureml-core"), "codecarbon": ("codecarbon", "codecarbon"),
    "clearml": ("clearml", "clearml"), "dagshub": ("dagshub", "dagshub mlflow"),
    "flyte": ("flytekit", "flytekit"), "dvclive": ("dvclive", "dvclive"),
    "swanlab": ("swanlab", "swanlab"),
}


def check_trainer(values: Mapping[str, Any]) -> dict[str, Any]:
    """The section's values, converted to the types of their fields.

    Raises:
        ValueError: an unknown field (the nearest is suggested), one that has another name here or
            that would break what rewardsteer sees to, or a value of the wrong type.
    """
    if not values:
        return {}
    library = _training_arguments()
    known = sorted(field.name for field in dataclasses.fields(library))
    hints = typing.get_type_hints(library)
    checked = {}
    for name, value in values.items():
        if name in NAMED_HERE:
            raise ValueError(f"trainer.{name} is called {NAMED_HERE[name]} here; set that instead")
        if name in OWNED:
            raise ValueError(f"trainer.{name} cannot be set: {OWNED[name]}")
        if name not in known:
            usable = [one for one in known if one not in NAMED_HERE and one not in OWNED]
            hint = nearest(name, usable) or " See transformers.TrainingArguments."
            raise ValueError(f"TrainingArguments has no field {name!r}.{hint}")
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        checked[name] = _typed(name, value, hints[name])
    return checked


@quiet_calls
def _training_arguments() -> Any:
    """The class; its import runs that of bitsandbytes, which warns where it has no kernels."""
    from transformers import TrainingArguments

    return TrainingArguments


def _typed(name: str, value: Any, hint: Any) -> Any:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"trainer.{name}: {faults(error.errors(), value)[0].words}") from error


def check_trackers(names: list[str]) -> None:
    """Raise `ConfigError` for a tracker that is unknown or not installed."""
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in _TRACKERS:
            known = sorted(_TRACKERS)
            raise ConfigError(
                f"log.report_to names an unknown tracker {name!r}.{nearest(name, known)} Known: "
                f"{', '.join(known)}."
            )
        module, package = _TRACKERS[name]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"log.report_to asks for {name}, which is not installed; run pip install "
                f"{package}, or leave it out (metrics.jsonl is written anyway)."
            )


def load_callback(place: str, options: Mapping[str, Any]) -> partial[Any]:
    """A maker of the `transformers.TrainerCallback` that ``module:Class`` names.

    Raises:
        ConfigError: it cannot be imported, is no callback, or refuses its options.
    """
    from transformers import TrainerCallback

    module, colon, name = place.partition(":")
    if not (colon and module and name):
        raise ConfigError(
            f"A callback is given as module:Class, for example "
            f"transformers:EarlyStoppingCallback; got {place!r}."
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The callback {place!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, TrainerCallback)):
        raise ConfigError(f"The callback {place!r} is no class of transformers.TrainerCallback.")

    make = partial(found, **options)
    try:
        make()
    except TypeError as error:
        raise ConfigError(f"The callback {place!r} refuses its options: {error}.") from error
    return make
