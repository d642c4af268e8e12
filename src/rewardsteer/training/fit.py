"""One phase of training: a model, an objective, rows; fresh optimiser and schedule."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from rewardsteer.data.collate import PairCollator
from rewardsteer.errors import ConfigError, OutputError
from rewardsteer.models.last_layer import takes_ends
from rewardsteer.models.packing import choose_packing, packed_attention
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives import OBJECTIVES
from rewardsteer.objectives.base import Objective
from rewardsteer.objectives.combine import combine
from rewardsteer.training.batches import (
    describe,
    describe_packing,
    make_batches,
    read_lengths,
)
from rewardsteer.training.checkpoints import check_engine, last_checkpoint, rewind_log
from rewardsteer.training.config import LogConfig, OptimiserConfig, TermConfig
from rewardsteer.training.memory import activation_offloading, peak_memory, reset_peak_memory
from rewardsteer.training.trainer import RewardTrainer

logger = logging.getLogger(__name__)

# Fields of `RewardOutput` that are None for a scalar head.
_VOCABULARY_FIELDS = {"best_next_token", "soft_next_token", "vocabulary_size"}


def build_objective(terms: Sequence[TermConfig]) -> Objective:
    """The weighted sum of the named objectives.

    Raises:
        ConfigError: unknown name or option.
    """
    built = []
    for term in terms:
        build = OBJECTIVES.get(term.name)
        try:
            built.append((build(**term.options), term.weight))
        except TypeError as error:
            raise ConfigError(f"The objective {term.name!r} refuses that: {error}.") from error
    return combine(built)


def check_fit(objective: Objective, head_kind: str) -> None:
    """Raise `ConfigError` when the head does not give a field that the objective needs."""
    missing = sorted(objective.needs & _VOCABULARY_FIELDS)
    if missing and head_kind != "vocabulary":
        raise ConfigError(
            f"The objective {objective.name!r} needs {missing[0]}, which a {head_kind} head does "
            "not give; set head.kind=vocabulary."
        )


def training_arguments(
    out: Path, optimiser: OptimiserConfig, log: LogConfig, seed: int, *, evaluate: bool,
    keep_best: bool = False, deterministic: bool = False,
) -> TrainingArguments:
    """Our settings in the terms of `transformers.TrainingArguments`."""
    return TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=optimiser.batch_size,
        per_device_eval_batch_size=optimiser.batch_size,
        gradient_accumulation_steps=optimiser.accumulation,
        num_train_epochs=optimiser.epochs,
        max_steps=optimiser.max_steps,
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type=optimiser.scheduler,
        warmup_steps=optimiser.warmup if optimiser.warmup < 1 else int(optimiser.warmup),
        weight_decay=optimiser.weight_decay,
        adam_beta1=optimiser.betas[0],
        adam_beta2=optimiser.betas[1],
        max_grad_norm=optimiser.max_grad_norm,
        bf16=optimiser.precision == "bf16",
        fp16=optimiser.precision == "fp16",
        gradient_checkpointing=optimiser.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        # At the ends of epochs the trainer sees to it itself.
        eval_strategy="steps" if evaluate and log.eval_steps else "no",
        eval_steps=log.eval_steps or None,
        save_strategy="steps" if log.save_steps else "no",
        save_steps=log.save_steps or 500,
        save_total_limit=2,
        load_best_model_at_end=keep_best,
        metric_for_best_model="accuracy" if keep_best else None,
        greater_is_better=True if keep_best else None,
        logging_steps=log.log_steps,
        # We stop on NaN with the rows named; the filter would hide it.
        logging_nan_inf_filter=False,
        report_to=log.report_to or "none",
        disable_tqdm=not log.progress,
        # Without it, transformers refuses bf16 where there is no accelerator.
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        label_names=["margin"],
        dataloader_pin_memory=False,
        seed=seed,
        data_seed=seed,
        full_determinism=deterministic,
    )


class LogLines(TrainerCallback):
    """Appends every log line to a JSONL file, with the phase it belongs to."""

    def __init__(self, path: Path, phase: str) -> None:
        self.path = path
        self.phase = phase

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the Trainer."""
        if not state.is_world_process_zero or not logs:
            return
        row = {"phase": self.phase, "step": state.global_step, **logs}
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"The log {self.path} cannot be written: {error}.") from error


def fit(
    model: RewardModel,
    tokenizer: Any,
    objective: Objective,
    rows: Any,
    out: Path,
    log_lines: Path,
    *,
    optimiser: OptimiserConfig,
    log: LogConfig,
    seed: int = 0,
    eval_rows: Any = None,
    padding_side: Literal["right", "left"] = "right",
    packing: Literal["auto", "off"] = "auto",
    phase: str = "train",
    resume: bool = False,
    keep_best: bool = False,
    deterministic: bool = False,
) -> dict[str, float]:
    """Train in place on rows of the store's schema.

    Args:
        model: changed in place.
        tokenizer: for its padding id.
        objective: the loss; `check_fit` is applied first.
        rows: a dataset of full rows, or of partial rows when the objective looks at prefixes.
        out: folder for checkpoints and a bad batch's record.
        log_lines: JSONL file that log lines are appended to.
        optimiser, log, seed, padding_side, packing: settings.
        eval_rows: partial rows to evaluate on, or None.
        phase: name written into the log lines.
        resume: go on from the last whole checkpoint in ``out``.
        keep_best: end with the weights of the checkpoint that ranked most test pairs right, where
            evaluations and checkpoints are made within the phase.
        deterministic: refuse operations whose result may differ from run to run; stays in force.

    Returns:
        ``peak_memory_mib`` of the phase (in this process, see `peak_memory`) and, with
        ``eval_rows``, the last evaluation's figures (``eval_accuracy``, …).

    Raises:
        ConfigError: activations cannot be offloaded here.
        CheckpointError: another engine wrote the checkpoint.
        NonFiniteError: the loss or the gradient became NaN or infinite.
        OutputError: a checkpoint or a log line cannot be written.
    """
    check_fit(objective, model.head_kind)
    keep_best = keep_best and eval_rows is not None and bool(log.eval_steps and log.save_steps)
    out.mkdir(parents=True, exist_ok=True)
    padding = tokenizer.pad_token_id
    violations = objective.prefixes is None and model.head_kind == "vocabulary"
    eval_prefixes = "chosen_lengths" if violations else objective.prefixes
    arguments = training_arguments(
        out, optimiser, log, seed, evaluate=eval_rows is not None, keep_best=keep_best,
        deterministic=deterministic,
    )
    paired = objective.rows == "pairs"
    lengths = read_lengths(rows, paired=paired)
    order = make_batches(lengths, optimiser, seed, arguments.world_size)
    costs = choose_packing(model, int(lengths.max())) if packing == "auto" else None
    collate = PairCollator(padding, padding_side, paired, objective.prefixes, costs)
    trainer = RewardTrainer(
        objective=objective,
        eval_collator=PairCollator(padding, padding_side, True, eval_prefixes, costs),
        order=order,
        log_lines=log_lines,
        resume_from=last_checkpoint(out) if resume else None,
        spike=log.spike,
        looks_at=objective.looks_at if objective.looks_at and takes_ends(model) else None,
        offload=activation_offloading() if optimiser.activation_offload else None,
        model=model, args=arguments,
        train_dataset=rows, eval_dataset=eval_rows, data_collator=collate,
        callbacks=[LogLines(log_lines, phase)],
    )
    if not log.echo:
        trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        logger.info("%s: %s", phase, describe(lengths, order, optimiser.batch_size, seed))
        if costs is not None:
            logger.info("%s: %s", phase, describe_packing(collate, rows, optimiser.batch_size))
    if resume:
        _rewind(trainer, phase)
    reset_peak_memory()
    with packed_attention(model, costs):
        trainer.train(resume_from_checkpoint=trainer.resume_from and str(trainer.resume_from))
        figures = {} if eval_rows is None else _last_evaluation(trainer, again=keep_best)
    figures["peak_memory_mib"] = peak_memory()
    trainer.log({"peak_memory_mib": figures["peak_memory_mib"]})
    return figures


def _rewind(trainer: RewardTrainer, phase: str) -> None:
    """Set the log back to where the trainer goes on from."""
    if trainer.resume_from is not None:
        check_engine(trainer.resume_from, trainer.accelerator)
    if trainer.is_world_process_zero():
        rewind_log(trainer.log_lines, phase, trainer.resume_from)
    trainer.accelerator.wait_for_everyone()


def _last_evaluation(trainer: RewardTrainer, *, again: bool) -> dict[str, float]:
    """Figures of the weights as they are now; ``again`` when others were loaded since."""
    # With evaluation at the end of each epoch the last figures are in the log already.
    for line in reversed(trainer.state.log_history):
        if not again and "eval_loss" in line and line["step"] == trainer.state.global_step:
            return {name: value for name, value in line.items() if name.startswith("eval_")}
    return trainer.evaluate()
