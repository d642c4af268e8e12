"""Checks of settings before anything is read or written."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rewardsteer.errors import ConfigError
from rewardsteer.models.heads import HEADS
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.objectives.base import Objective
from rewardsteer.objectives.combine import build_objective
from rewardsteer.registry import nearest
from rewardsteer.training.arguments import keeps_best, training_arguments
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.evaluation_figures import names_of_figures
from rewardsteer.training.memory import activation_offloading
from rewardsteer.training.policy_config import PolicyConfig
from rewardsteer.training.shared_config import OptimiserConfig
from rewardsteer.training.trainer_settings import check_trackers, load_callback

# Prefixes that cannot be drawn one by one, and why.
_WHOLE_ROWS = {
    None: "uses no prefixes", "step_lengths": "reads all labelled steps of a row at once",
    "all": "reads all tokens of a response at once",
}


def check_settings(config: TrainConfig, processes: int) -> list[partial[Any]]:
    """Check objectives, trackers, callbacks, the batch size of all processes and the training
    arguments; returns makers of the callbacks.

    Raises:
        ConfigError: one of them is wrong.
    """
    objectives = [build_objective(phase.objective) for phase in config.phases]
    if config.policy is not None and not any(one.backups for one in objectives):
        raise ConfigError(
            "The setting policy is for the backups policy_soft, policy_mean and policy_top_k of "
            "max_constraint, and no phase uses one; leave it out, or name a backup."
        )
    for phase, objective in zip(config.phases, objectives, strict=True):
        check_head_gives(objective, config.head)
        check_best_figure(objective, config.head, config.trainer)
        if phase.prefix_rows is not None and objective.prefixes in _WHOLE_ROWS:
            raise ConfigError(
                f"The objective {phase.name!r} {_WHOLE_ROWS[objective.prefixes]}, so its phase "
                "takes rows, not prefix_rows."
            )
    check_optimiser(config.optimiser, processes)
    return check_trainer_sections(
        config, evaluate=True,
        keep_best=config.select == "best" and keeps_best(config.log, config.trainer),
    )


def check_callbacks(callbacks: Sequence[Any], *, evaluates: bool) -> None:
    """Raise `ConfigError` for what is neither a callback of transformers nor a class of one, and
    for early stopping where training makes no evaluations."""
    from transformers import EarlyStoppingCallback, TrainerCallback

    for one in callbacks:
        kind = one if isinstance(one, type) else type(one)
        if not issubclass(kind, TrainerCallback):
            raise ConfigError(
                "callbacks are objects or classes of transformers.TrainerCallback, got "
                f"{one!r}."
            )
        if issubclass(kind, EarlyStoppingCallback) and not evaluates:
            raise ConfigError(
                f"The callback {kind.__name__} stops by evaluations, and this training makes none; "
                "leave it out, or trainer.eval_strategy=no where that is set."
            )


def check_head_gives(objective: Objective, head: HeadConfig) -> None:
    """Raise `ConfigError` when the head does not give a field that the objective needs."""
    missing = sorted(objective.needs - head.head_class.gives)
    if not missing:
        if objective.attributes and objective.attributes != tuple(head.attributes):
            raise ConfigError(
                f"The objective {objective.name!r} is of the attributes "
                f"{', '.join(objective.attributes)}, the head of {', '.join(head.attributes)}; "
                "name the same ones in the same order."
            )
        return
    fitting = [name for name in HEADS.names() if missing[0] in HEADS.get(name).gives]
    raise ConfigError(
        f"The objective {objective.name!r} needs {missing[0]}, which a {head.kind} head does not "
        f"give; set head.kind={' or '.join(fitting) or 'one that does'}."
    )


def check_best_figure(
    objective: Objective, head: HeadConfig, trainer: Mapping[str, Any], *,
    single: bool | None = None,
) -> None:
    """Raise `ConfigError` when ``trainer.metric_for_best_model`` names no figure of evaluations;
    ``single``: see `names_of_figures`."""
    wanted = trainer.get("metric_for_best_model")
    known = names_of_figures(objective, head.head_class.gives, single=single)
    if wanted is not None and wanted.removeprefix("eval_") not in known:
        raise ConfigError(
            f"trainer.metric_for_best_model names {wanted!r}, which is no figure of evaluations of "
            f"the objective {objective.name!r}.{nearest(wanted, known)} Known: {', '.join(known)}."
        )


def check_trainer_sections(
    config: TrainConfig | PolicyConfig, *, evaluate: bool, keep_best: bool = False
) -> list[partial[Any]]:
    """Check trackers, callbacks and the training arguments; returns makers of the callbacks.

    Raises:
        ConfigError: one of them is wrong.
    """
    check_trackers(config.log.report_to)
    callbacks = [load_callback(one.name, one.options) for one in config.callbacks]
    training_arguments(
        Path("."), config.optimiser, config.log, config.seed, evaluate=evaluate,
        keep_best=keep_best, trainer=config.trainer,
    )
    return callbacks


def check_optimiser(optimiser: OptimiserConfig, processes: int) -> None:
    """Check that activations can be offloaded where that is asked for, and the batch size of all
    processes.

    Raises:
        ConfigError: one of them is wrong.
    """
    if optimiser.activation_offload:
        activation_offloading()
    together, wanted = optimiser.per_device_train_batch_size * processes, optimiser.train_batch_size
    if wanted is None:
        return
    if optimiser.batch_tokens is not None:
        raise ConfigError(
            "optimiser.train_batch_size counts comparisons, and optimiser.batch_tokens leaves "
            "their number open; give one of the two."
        )
    if together * optimiser.gradient_accumulation_steps == wanted:
        return
    fitting = (
        f"set optimiser.gradient_accumulation_steps={wanted // together}" if wanted % together == 0
        else f"choose a per_device_train_batch_size that divides {wanted / processes:g}"
    )
    raise ConfigError(
        f"optimiser.train_batch_size is {wanted}, but per_device_train_batch_size × "
        f"gradient_accumulation_steps × processes = "
        f"{optimiser.per_device_train_batch_size} × {optimiser.gradient_accumulation_steps} × "
        f"{processes} = "
        f"{together * optimiser.gradient_accumulation_steps}; {fitting}."
    )
