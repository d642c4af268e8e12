"""The only `transformers.Trainer` subclass: a reward model, an objective, and a stop on NaN."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import NonFiniteError
from rewardsteer.objectives.base import Objective, split_pairs
from rewardsteer.outputs import write_json
from rewardsteer.tensors import PairBatch, RewardOutput

BAD_BATCH = "nonfinite_batch.json"


class RewardTrainer(Trainer):
    """Minimises an objective over comparison rows.

    Args:
        objective: the loss.
        eval_collator: collates evaluation rows; always in pairs, whatever training reads.
        options: passed on to `transformers.Trainer`.
    """

    # compute_loss returns a mean over its batch, so the Trainer divides by the accumulation steps.
    loss_is_scaled_for_ga = False
    data_collator: Any

    def __init__(
        self, *, objective: Objective, eval_collator: PairCollator, **options: Any
    ) -> None:
        super().__init__(compute_metrics=pair_metrics, **options)
        self.objective = objective
        self.eval_collator = eval_collator
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective on one batch; raises `NonFiniteError` naming the rows of a bad batch."""
        batch = to_batch(inputs)
        output: RewardOutput = model(batch)
        result = self.objective(output, batch)
        if not torch.isfinite(result.loss):
            self._stop(batch, result.loss)
        if model.training:
            for name, value in result.metrics.items():
                # Summed on the device: reading a number each step would make a GPU wait.
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
                self._counts[name] += 1
        return (result.loss, output) if return_outputs else result.loss

    def _stop(self, batch: PairBatch, loss: Tensor) -> None:
        step = self.state.global_step + 1
        place = Path(self.args.output_dir) / BAD_BATCH
        write_json(place, {"step": step, "row_ids": batch.row_ids, "loss": str(loss.item())})
        shown = ", ".join(batch.row_ids[:8]) + (", …" if len(batch.row_ids) > 8 else "")
        raise NonFiniteError(
            f"The loss became {loss.item()} at update {step}; training stopped and earlier "
            f"checkpoints are kept. The batch held rows {shown} (all in {place}). Lower the "
            "learning rate or look at these rows, then go on with --resume."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the objective's means since the last log line to the training log lines."""
        if "loss" in logs:
            for name, total in self._sums.items():
                logs[name] = (total / self._counts[name]).item()
            self._sums, self._counts = {}, defaultdict(int)
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Evaluation rows come in pairs even when training reads chosen rows alone."""
        training_collator: Any = self.data_collator
        self.data_collator = self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Rewards of both responses and the constraint violation of every row, ``[B, 3]``."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            batch = to_batch(inputs)
            output: RewardOutput = model(batch)
            result = self.objective(output, batch)
            chosen, rejected = split_pairs(output.sequence_rewards, batch)
            columns = torch.stack([chosen, rejected, _violations(output, batch)], dim=1).float()
        return result.loss, columns, batch.margin


def _violations(output: RewardOutput, batch: PairBatch) -> Tensor:
    """Mean |r(y₁..i) − max_v r(y₁..i∘v)| over each chosen row's prefixes ``[B]``; NaN without."""
    mask = batch.prefix_mask.clone()
    count = len(mask) // 2
    mask[count:] = False
    violation = torch.full(mask.shape, float("nan"), device=mask.device)
    if output.best_next_token is not None and bool(mask.any()):
        best = output.best_next_token(mask)
        violation[mask] = (output.token_rewards[mask] - best).abs().float()
    return violation[:count].nanmean(dim=1)


def pair_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy (a tie counts half), reward gap and, for a vocabulary head, constraint violation."""
    columns = np.asarray(prediction.predictions, dtype=np.float64)
    chosen, rejected, violation = columns.T
    metrics = {
        "accuracy": float((chosen > rejected).mean() + 0.5 * (chosen == rejected).mean()),
        "reward_gap": float((chosen - rejected).mean()),
    }
    if not np.isnan(violation).all():
        metrics["constraint_violation"] = float(np.nanmean(violation))
    return metrics
