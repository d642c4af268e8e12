"""Settings that the training of a reward model and of a policy share. No torch here."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from rewardsteer.configuration import Config
from rewardsteer.devices import multiplies_bfloat16
from rewardsteer.registry import nearest
from rewardsteer.training.trainer_settings import NAMED_HERE, check_trainer

# Learning-rate schedules that transformers knows.
SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
)


def _never(steps: Any) -> Any:
    """Published code writes -1 for never; here that is 0."""
    return 0 if steps == -1 and not isinstance(steps, bool) else steps


def _off(value: Any) -> Any:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


def _one_or_several(names: Any) -> Any:
    return [names] if isinstance(names, str | dict) else names


Packing = Annotated[Literal["auto", "off"], BeforeValidator(_off)]
Steps = Annotated[int, BeforeValidator(_never), Field(ge=0)]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]

class OptimiserConfig(Config):
    """How weights are updated. Other fields of `transformers.TrainingArguments` (``optim``,
    ``lr_scheduler_kwargs``, …) go into the section ``trainer`` under their own names.

    Attributes:
        learning_rate: peak learning rate.
        per_device_train_batch_size: comparisons in a batch of one device, in evaluation too.
        train_sampling_strategy: ``random``, or ``group_by_length``: a batch holds pairs of similar
            length, which leaves little padding. Batches are shuffled anew each epoch either way.
        batch_tokens: a training batch holds as many comparisons of similar length as fit into so
            many tokens, padding and both responses included; a longer comparison is a batch of its
            own. Implies ``group_by_length``; evaluation keeps ``per_device_train_batch_size``.
        gradient_accumulation_steps: batches summed up before an update.
        train_batch_size: comparisons of an update on all devices together; checked against
            per_device_train_batch_size × gradient_accumulation_steps × processes when training
            starts. None: not checked.
        num_train_epochs: passes over the rows of a phase.
        max_steps: updates per phase; overrides ``num_train_epochs`` when positive, -1 leaves it to
            them.
        lr_scheduler_type: learning-rate schedule, restarted in each phase; its options are
            ``trainer.lr_scheduler_kwargs``.
        warmup_steps: updates of warm-up when ≥ 1, a share of all updates when below 1.
        weight_decay: AdamW's.
        betas: AdamW's.
        max_grad_norm: gradients are clipped to this norm.
        precision: ``bf16`` or ``fp16`` autocast, or ``fp32`` for none; ``auto`` is ``bf16`` where
            the device has instructions for it and ``fp32`` elsewhere. Weights that are trained are
            float32 with each of them, also where the base model is saved in another type.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        activation_offload: keep activations in the computer's memory between forward and backward
            pass instead of the accelerator's; needs trl.
    """

    aliases: ClassVar[dict[str, str]] = {
        name: place.removeprefix("optimiser.")
        for name, place in NAMED_HERE.items()
        if place.startswith("optimiser.") and place != f"optimiser.{name}"
    } | {
        "lr": "learning_rate", "micro_train_batch_size": "per_device_train_batch_size",
        "lr_scheduler": "lr_scheduler_type", "max_epochs": "num_train_epochs",
        "max_norm": "max_grad_norm", "l2": "weight_decay",
    }
    renamed: ClassVar[dict[str, str]] = {
        "batch_size": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps",
        "epochs": "num_train_epochs", "scheduler": "lr_scheduler_type", "warmup": "warmup_steps",
        "order": "train_sampling_strategy",
    }

    learning_rate: LearningRate = 5e-6
    per_device_train_batch_size: int = Field(8, ge=1)
    train_sampling_strategy: Literal["random", "group_by_length"] = "random"
    batch_tokens: int | None = Field(None, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    train_batch_size: int | None = Field(None, ge=1)
    num_train_epochs: float = Field(1.0, gt=0, allow_inf_nan=False)
    max_steps: int = -1
    lr_scheduler_type: str = "linear"
    warmup_steps: float = Field(0.0, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: float = Field(1.0, ge=0, allow_inf_nan=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    activation_offload: bool = False

    @property
    def autocast(self) -> Literal["fp32", "bf16", "fp16"]:
        """``precision`` with ``auto`` decided by the device at hand."""
        if self.precision == "auto":
            return "bf16" if multiplies_bfloat16() else "fp32"
        return self.precision

    @field_validator("lr_scheduler_type")
    @classmethod
    def _known_scheduler(cls, name: str) -> str:
        if name not in SCHEDULERS:
            known = list(SCHEDULERS)
            raise ValueError(f"no such schedule.{nearest(name, known)} Known: {', '.join(known)}")
        return name

    @field_validator("max_steps")
    @classmethod
    def _positive_or_all(cls, steps: int) -> int:
        if steps < 1 and steps != -1:
            raise ValueError("expected a number of updates of at least 1, or -1 to count epochs")
        return steps

    @field_validator("warmup_steps")
    @classmethod
    def _whole_updates(cls, warmup: float) -> float:
        if warmup >= 1 and not warmup.is_integer():
            raise ValueError("expected a share below 1 or a whole number of updates")
        return warmup


class LogConfig(Config):
    """What is written while training runs.

    Attributes:
        logging_steps: updates between log lines.
        eval_steps: updates between evaluations on the test split; 0 (or -1) evaluates at the ends
            of epochs.
        save_steps: updates between checkpoints to resume from; 0 (or -1) saves after each phase
            only. ``trainer.save_strategy=epoch`` saves at the ends of epochs.
        eval_rows: at most this many test rows are used.
        report_to: trackers that transformers supports: tensorboard, wandb, trackio, mlflow, …
        progress: show a progress bar on a terminal.
        print_logs: print a line on progress now and then where there is no terminal.
        spike_threshold: an update is logged as a spike (``loss_spike``, with its rows in the
            program's log) when its loss exceeds the median of the last 50 by more than so many
            times their spread; None logs none.
    """

    aliases: ClassVar[dict[str, str]] = {
        "save_total_limit": "trainer.save_total_limit", "run_name": "trainer.run_name",
    }
    renamed: ClassVar[dict[str, str]] = {
        "log_steps": "logging_steps", "echo": "print_logs", "spike": "spike_threshold",
    }

    logging_steps: int = Field(10, ge=1)
    eval_steps: Steps = 0
    save_steps: Steps = 0
    eval_rows: int = Field(512, ge=1)
    report_to: Annotated[list[str], BeforeValidator(_one_or_several)] = Field(default_factory=list)
    progress: bool = True
    print_logs: bool = True
    spike_threshold: float | None = Field(8.0, gt=0)


class CallbackConfig(Config):
    """A `transformers.TrainerCallback`, created for each phase.

    Attributes:
        name: ``module:Class``, for example ``transformers:EarlyStoppingCallback``.
        options: arguments of the class.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


# The sections ``trainer`` and ``callbacks``, of a reward model's training and of a policy's.
TrainerFields = Annotated[dict[str, Any], AfterValidator(check_trainer)]
Callbacks = Annotated[list[CallbackConfig], BeforeValidator(_one_or_several)]
# What other libraries and `transformers.TrainingArguments` call settings of training.
TRAINING_ALIASES = NAMED_HERE | {
    "optimizer": "optimiser", "lr": "optimiser.learning_rate",
    "train_batch_size": "optimiser.train_batch_size",
    "micro_train_batch_size": "optimiser.per_device_train_batch_size",
    "max_epochs": "optimiser.num_train_epochs",
    "model": "base_model", "model_name_or_path": "base_model", "pretrain": "base_model",
} | {
    name: f"trainer.{name}" for name in (
        "optim", "optim_args", "lr_scheduler_kwargs", "torch_compile", "run_name",
        "save_total_limit", "eval_strategy", "save_strategy", "logging_strategy",
        "logging_first_step", "neftune_noise_alpha", "dataloader_num_workers", "tf32",
        "use_liger_kernel", "ddp_timeout", "metric_for_best_model", "adam_epsilon",
    )
}
