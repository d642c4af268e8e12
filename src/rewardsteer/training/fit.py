"""One phase of training: a model, an objective, rows; fresh optimiser and schedule."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from accelerate import PartialState

from rewardsteer.data.collate import PairCollator
from rewardsteer.data.collate_responses import ResponseCollator
from rewardsteer.models.packing.choose import choose_packing, packed_attention
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.base import Objective
from rewardsteer.training.arguments import apply_liger, keeps_best, training_arguments
from rewardsteer.training.batches import describe, describe_packing, make_batches
from rewardsteer.training.checkpoints import (
    check_engine,
    last_checkpoint,
    rewind_log,
    step_of,
    whole_checkpoints,
)
from rewardsteer.training.checks import check_best_figure, check_head_gives
from rewardsteer.training.evaluation_figures import CONSTRAINT
from rewardsteer.training.memory import activation_offloading, peak_memory, reset_peak_memory
from rewardsteer.training.rows import count_single, read_lengths
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from rewardsteer.training.showing import LogLines, finite_or_none, showing
from rewardsteer.training.trainer import RewardTrainer

logger = logging.getLogger(__name__)


def fit(
    model: RewardModel,
    tokenizer: Any, objective: Objective, rows: Any, out: Path, log_lines: Path,
    *,
    optimiser: OptimiserConfig, log: LogConfig,
    seed: int = 0,
    eval_rows: Any = None,
    padding_side: Literal["right", "left"] = "right",
    packing: Literal["auto", "off"] = "auto",
    phase: str = "train", title: str | None = None,
    resume: bool = False, resume_from: Path | None = None,
    keep_best: bool = False, deterministic: bool = False,
    trainer_fields: Mapping[str, Any] = MappingProxyType({}),
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Train in place on rows of the store's schema.

    Args:
        model: changed in place.
        tokenizer: for its padding id.
        objective: the loss; `check_head_gives` is applied first.
        rows: a dataset of full rows, of partial rows for an objective on prefixes, or of responses
            for an objective on their numbers.
        out: folder for checkpoints and a bad batch's record.
        log_lines: JSONL file that log lines are appended to.
        optimiser, log, seed, padding_side, packing: settings.
        eval_rows: partial rows (or responses) to evaluate on, or None.
        phase: name written into the log lines.
        title: its name in progress and in the line at its end; None: no line at the end.
        resume: continue from the last complete checkpoint in ``out``.
        resume_from: continue from this checkpoint in ``out`` instead; later ones are deleted.
        keep_best: end with the weights of the checkpoint with the best evaluation, where the phase
            evaluates its checkpoints.
        deterministic: refuse operations whose result may differ from run to run, in this process
            from then on.
        trainer_fields: further fields of `transformers.TrainingArguments`.
        callbacks: classes or objects of `transformers.TrainerCallback`.

    Returns:
        ``peak_memory_mib`` of the phase (in this process, see `peak_memory`) and, with
        ``eval_rows``, the last evaluation's figures (``eval_accuracy``, …).

    Raises:
        ConfigError: activations cannot be offloaded here, or see `check_best_figure`.
        CheckpointError: another engine wrote the checkpoint.
        NonFiniteError: the loss or the gradient became NaN or infinite.
        OutputError: a checkpoint or a log line cannot be written.
    """
    check_head_gives(objective, model.head_config)
    check_best_figure(objective, model.head_config, trainer_fields, single=_single(eval_rows))
    keep_best = keep_best and eval_rows is not None and keeps_best(log, trainer_fields)
    out.mkdir(parents=True, exist_ok=True)
    arguments = training_arguments(
        out, optimiser, log, seed, evaluate=eval_rows is not None, keep_best=keep_best,
        best=objective.best, deterministic=deterministic, trainer=trainer_fields,
    )
    if arguments.use_liger_kernel:
        apply_liger(model.carrier, arguments)
    lengths = read_lengths(rows, paired=objective.rows == "pairs")
    order = make_batches(lengths, optimiser, seed, arguments.world_size)
    collate, eval_collate = _collators(objective, model, tokenizer, padding_side, eval_rows)
    trainer = RewardTrainer(
        objective=objective, eval_collator=eval_collate, order=order,
        log_lines=log_lines,
        resume_from=_resume_from(out, resume, resume_from),
        spike=log.spike_threshold,
        offload=activation_offloading() if optimiser.activation_offload else None,
        model=model, args=arguments,
        train_dataset=rows, eval_dataset=eval_rows, data_collator=collate,
        callbacks=[LogLines(log_lines, phase), *callbacks],
    )
    # Only now is the device known on which the model is trained.
    longest = int(lengths.max())
    costs = choose_packing(model, longest, arguments.device) if packing == "auto" else None
    collate.packing = eval_collate.packing = costs
    if trainer.is_world_process_zero():
        size = optimiser.per_device_train_batch_size
        logger.debug("%s: %s", phase, describe(lengths, order, size, seed))
        if costs is not None:
            logger.debug("%s: %s", phase, describe_packing(collate, rows, size))
    if resume or resume_from is not None:
        _rewind(trainer, phase)
    reset_peak_memory()
    shown = showing(trainer, title, bar=log.progress, lines=log.print_logs)
    with shown, packed_attention(model, costs):
        trainer.train(resume_from_checkpoint=trainer.resume_from and str(trainer.resume_from))
        figures = {} if eval_rows is None else _last_evaluation(trainer, again=keep_best)
    figures["peak_memory_mib"] = peak_memory()
    trainer.log({"peak_memory_mib": figures["peak_memory_mib"]})
    return finite_or_none(figures)


def _single(rows: Any) -> bool | None:
    """Whether any row has one response; None without rows."""
    return None if rows is None else count_single(rows) > 0


def _collators(
    objective: Objective, model: RewardModel, tokenizer: Any, side: Literal["right", "left"],
    eval_rows: Any,
) -> tuple[PairCollator, PairCollator]:
    """The collators of training and of evaluation; the latter makes pairs if all its rows are."""
    padding, gives = tokenizer.pad_token_id, model.head.gives
    pairs = not _single(eval_rows)
    if objective.rows == "responses":
        collator = ResponseCollator(padding, side, prefixes=objective.prefixes)
        return collator, collator
    return (
        PairCollator(padding, side, objective.rows == "pairs", objective.prefixes),
        PairCollator(padding, side, pairs, _eval_prefixes(objective, gives)),
    )


def _eval_prefixes(objective: Objective, gives: frozenset[str]) -> Any:
    """The prefixes that evaluation uses: it measures the maximum constraint wherever the head gives
    both sides of it."""
    if objective.prefixes is None and gives >= CONSTRAINT:
        return "chosen_lengths"
    return objective.prefixes


def _resume_from(out: Path, resume: bool, wanted: Path | None) -> Path | None:
    """The checkpoint to resume from. The first process deletes those after a ``wanted`` one,
    because the log is written again from there."""
    if wanted is None:
        return last_checkpoint(out) if resume else None
    if PartialState().is_main_process:
        for folder in whole_checkpoints(out):
            if step_of(folder) > step_of(wanted):
                logger.warning("deleting %s, which comes after %s", folder, wanted)
                shutil.rmtree(folder)
    return wanted


def _rewind(trainer: RewardTrainer, phase: str) -> None:
    """Cut the log back to the checkpoint that the trainer resumes from."""
    if trainer.resume_from is not None:
        check_engine(trainer.resume_from, trainer.accelerator)
        if trainer.is_world_process_zero():
            logger.info("Resuming from step %d of %s", step_of(trainer.resume_from), phase)
    if trainer.is_world_process_zero():
        rewind_log(trainer.log_lines, phase, trainer.resume_from)
    trainer.accelerator.wait_for_everyone()


def _last_evaluation(trainer: RewardTrainer, *, again: bool) -> dict[str, float]:
    """Figures of the current weights; ``again`` if they were loaded after the last evaluation."""
    # With evaluation at the end of each epoch the last figures are in the log already.
    for line in reversed(trainer.state.log_history):
        if not again and "eval_loss" in line and line["step"] == trainer.state.global_step:
            return {name: value for name, value in line.items() if name.startswith("eval_")}
    return trainer.evaluate()
