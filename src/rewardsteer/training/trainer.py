"""The trainer: minimises an objective, resumes exactly, and stops on values that are not finite.

Its checkpoints are in `rewardsteer.training.checkpointing`.
"""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import set_seed

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.distributed import (
    excluded_from_reductions,
    gather_rows,
    several_processes,
    within_update,
)
from rewardsteer.models.router import router_coefficient
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.objectives.counting import count_terms
from rewardsteer.tensors import PairBatch, RewardOutput
from rewardsteer.training import anomalies, checkpoints
from rewardsteer.training.accumulator import MetricAccumulator
from rewardsteer.training.batches import LengthBatches, ProcessBatches, RowBatches
from rewardsteer.training.checkpointing import CheckpointingTrainer
from rewardsteer.training.evaluation_figures import (
    CONSTRAINT,
    evaluation_columns,
    figures_of,
    rows_of_bad_rewards,
)
from rewardsteer.training.phase_callback import PhaseCallback
from rewardsteer.training.precision import keep_outputs_wide

logger = logging.getLogger(__name__)


class RewardTrainer(CheckpointingTrainer):
    """Minimises an objective over comparison rows.

    Args:
        eval_collator: collates evaluation rows; pairs always in pairs, whatever training reads.
        order: the training batches, as lists of row numbers.
        log_lines: the file that log lines go to; checkpoints note its length.
        resume_from: a checkpoint to go on from, or None.
        offload: makes the context of each training step, see `activation_offloading`.
        spike: see `anomalies.LossSpikeDetector`; None: no loss stands out.
        options: passed on to `transformers.Trainer`.
    """

    # compute_loss returns a batch's share of an update's loss, so the Trainer must not divide it.
    loss_is_scaled_for_ga = True
    data_collator: Any

    def __init__(
        self, *, objective: Objective, eval_collator: PairCollator,
        order: RowBatches | LengthBatches, log_lines: Path, resume_from: Path | None = None,
        offload: Callable[[nn.Module], AbstractContextManager[object]] | None = None,
        spike: float | None = None, **options: Any,
    ) -> None:
        super().__init__(
            log_lines=log_lines,
            compute_metrics=figures_of(
                objective,
                (options["args"].metric_for_best_model or objective.best).removeprefix("eval_"),
            ), **options,
        )
        keep_outputs_wide(self.accelerator)
        # Asked for when NEFTune's noise is added to them.
        self.model.get_input_embeddings = self.model.carrier.get_input_embeddings
        self.objective = objective
        self.eval_collator = eval_collator
        self.order = order
        self.resume_from = resume_from
        self.offload = nullcontext() if offload is None else offload(self.model)
        self.interval = MetricAccumulator(self.args.device)
        self.spikes = None if spike is None else anomalies.LossSpikeDetector(spike)
        # Of the update under way: the losses of its batches, and the rows read for it.
        self._losses = anomalies.Losses()
        self._loss = 0.0
        self._batches = 1
        self.model_accepts_loss_kwargs = True  # what says the same to older versions
        self._read: list[str] = []
        self.add_callback(PhaseCallback(self))
        # Processes draw their own dropout; everything that must be equal was drawn before.
        set_seed(self.args.seed + 7919 * self.args.process_index)

    # --- one update ------------------------------------------------------------------------------

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        self.interval.start()
        with self.offload:
            loss: Tensor = super().training_step(*args, **options)
        return loss

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The batches of an update and, where there are several, the counts ``[M]`` that its means
        divide by, so that each row, prefix and pair has the same weight in any batch."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._batches = max(len(samples), 1)
        if len(samples) < 2:
            return samples, None
        counts = torch.stack([
            count_terms(self.objective, to_batch(one)) for one in samples
        ]).sum(dim=0).to(device)
        if several_processes():
            torch.distributed.all_reduce(counts)
        return samples, counts

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective on one batch.

        The losses of an update stay on the device and are checked once, before the backward pass of
        its last batch: checking each would make a GPU wait for every batch, and checking later
        would let an engine update the weights within the backward pass.

        Raises:
            NonFiniteError: a loss of the update is not finite; names the rows.
        """
        batch = to_batch(inputs)
        batch.draw = f"{self.args.seed}/{self.state.global_step}"
        output = model(batch, *self._asked())
        with within_update(num_items_in_batch), excluded_from_reductions(batch.is_dummy):
            result = self._with_router_loss(self.objective(output, batch), output, batch)
        bad = rows_of_bad_rewards(output, batch)
        rows = [] if batch.is_dummy else batch.row_ids
        self._read += rows
        self._losses.add(result.loss, rows, bad)
        if len(self._losses) >= self._batches:
            self._loss, names = self._losses.take()
            if not math.isfinite(self._loss):
                self._stop("loss", self._loss, names)
        self.interval.add(batch, result.metrics, result.terms, 1 / self._batches)
        return (result.loss, result) if return_outputs else result.loss

    def _asked(self) -> tuple[Any, ...]:
        """What the objective asks the model for."""
        return self.objective.needs, self.objective.temperatures, self.objective.backups

    def _with_router_loss(
        self, result: ObjectiveResult, output: RewardOutput, batch: PairBatch
    ) -> ObjectiveResult:
        """Add the router loss of a mixture of experts, as the library's language models do."""
        if output.router_loss is None:
            return result
        weight = 0.0 if batch.is_dummy else router_coefficient(self.model.backbone)
        # Losses of an update's batches add up.
        return result._replace(
            loss=result.loss + weight / self._batches * output.router_loss,
            metrics=result.metrics | {"router_aux_loss": output.router_loss.detach()},
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """As the library's, which under DeepSpeed would round a row's numbers to the model's type.
        The public hooks come too late: the library rounds before `compute_loss`."""
        names = ("margin", "extras", "step_labels", "numbers", "candidates")
        kept = {name: inputs[name] for name in names if name in inputs}
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return prepared | send_to_device(kept, self.args.device)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As the library's; raises `NonFiniteError` when the gradient is not finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # A loss scaler for float16 lowers its scale when that happens, and skips the update.
        if norm is not None and not self.args.fp16 and not math.isfinite(norm):
            self._stop("gradient", float(norm), [])
        return norm

    def _stop(self, what: str, value: float, suspects: list[str]) -> None:
        step = self.state.global_step + 1
        folder = Path(self.args.output_dir)
        anomalies.raise_nonfinite(what, value, step, self._read, suspects, folder)

    def end_update(self) -> None:
        """Report the loss of the finished update if it is a spike."""
        loss, rows = self._loss, self._read
        self._read = []
        usual = None if self.spikes is None else self.spikes.note(loss)
        if usual is None:
            return
        if self.is_world_process_zero():
            logger.warning(
                "the loss of update %d stands out: %.4g, usual is %.4g; rows %s",
                self.state.global_step, loss, usual, anomalies.format_ids(rows),
            )
        self.log({"loss_spike": loss, "loss_usual": usual})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the library's, with `MetricAccumulator.figures` since the last line."""
        if "loss" in logs:
            logs |= self.interval.figures()
        if "train_loss" in logs:
            # Of the whole phase, also where it was interrupted.
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # --- which rows ------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """This process's share of the batches of `order`."""
        return self._load(self.train_dataset, self.order, self.data_collator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """This process's share of the evaluation rows, every row in exactly one; they come in pairs
        even when training reads chosen rows alone."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        order = RowBatches(
            len(rows), self.args.per_device_eval_batch_size, processes=self.args.world_size
        )
        return self._load(rows, order, self.eval_collator)

    def _load(self, rows: Any, order: RowBatches | LengthBatches, collate: Any) -> Any:
        share = ProcessBatches(order, self.args.process_index)
        workers = self.args.dataloader_num_workers
        return DataLoader(
            rows, batch_sampler=share, collate_fn=collate, num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
        )

    # --- evaluation ------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the library's; its time does not count as training."""
        self.interval.pause()
        figures: dict[str, float] = super().evaluate(*args, **options)
        return figures

    def evaluation_loop(self, *args: Any, **options: Any) -> Any:
        """As the library's, which would expect as many rows of every process."""
        self.gather_function = gather_rows
        return super().evaluation_loop(*args, **options)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The columns of `evaluation_columns`."""
        batch = to_batch(self._prepare_inputs(inputs))
        needs = self.objective.needs | (CONSTRAINT & self.model.head.gives)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(batch, needs, *self._asked()[1:])
            columns = evaluation_columns(self.objective, output, batch)
        columns = columns[: 0 if batch.is_dummy else len(columns)]
        return None, columns, columns[:, 0]

    # --- checkpoints -----------------------------------------------------------------------------

    def progress(self) -> dict[str, Any]:
        """The sums of the current log interval, for a checkpoint."""
        return {
            "loss": self._tr_loss.item(), "logged": self._globalstep_last_logged,
            "total_loss": self._total_loss_scalar, "interval": self.interval.state(),
            "spikes": None if self.spikes is None else self.spikes.state(),
        }

    def restore_progress(self) -> None:
        """Continue the sums of the log interval in which the checkpoint was made."""
        if self.resume_from is None:
            return
        first = checkpoints.read_interval(self.resume_from, 0)
        self._tr_loss += first["loss"]
        self._globalstep_last_logged = first["logged"]
        self._total_loss_scalar = first["total_loss"]
        own = checkpoints.read_intervals(self.resume_from, self.accelerator)
        self.interval.restore([one["interval"] for one in own])
        if self.spikes is not None:
            self.spikes.restore(first["spikes"] or [])
