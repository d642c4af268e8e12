"""The only `transformers.Trainer` subclass: a reward model, an objective, and a stop on NaN."""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import NonFiniteError
from rewardsteer.objectives.base import Objective, split_pairs
from rewardsteer.outputs import write_json
from rewardsteer.tensors import PairBatch, RewardOutput
from rewardsteer.training.batches import EpochCallback, LengthBatches

BAD_BATCH = "nonfinite_batch.json"


class RewardTrainer(Trainer):
    """Minimises an objective over comparison rows.

    Args:
        objective: the loss.
        eval_collator: collates evaluation rows; always in pairs, whatever training reads.
        order: which training rows stand in one batch; None draws ``batch_size`` at random.
        offload: makes the context of each training step, see `activation_offloading`.
        options: passed on to `transformers.Trainer`.
    """

    # compute_loss returns a mean over its batch, so the Trainer divides by the accumulation steps.
    loss_is_scaled_for_ga = False
    data_collator: Any

    def __init__(
        self, *, objective: Objective, eval_collator: PairCollator,
        order: LengthBatches | None = None,
        offload: Callable[[nn.Module], AbstractContextManager[object]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(compute_metrics=pair_metrics, **options)
        self.objective = objective
        self.eval_collator = eval_collator
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self.order = order
        if order is not None:
            self.add_callback(EpochCallback(order))
        self.offload = nullcontext() if offload is None else offload(self.model)
        # Of the log interval. Real: tokens of the rows, and places read that hold a token, which
        # are fewer where rows share a beginning.
        self._tokens_real = torch.zeros(2, dtype=torch.long, device=self.args.device)
        self._tokens_computed = self._tokens_padded = 0
        self._seconds = 0.0
        self._began: float | None = None

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """One forward and backward pass."""
        if self._began is None:
            self._began = time.perf_counter()
        with self.offload:
            loss: Tensor = super().training_step(*args, **options)
        return loss

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
            self.count(batch)
            for name, value in result.metrics.items():
                # Summed on the device: reading a number each step would make a GPU wait.
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
                self._counts[name] += 1
        return (result.loss, output) if return_outputs else result.loss

    def count(self, batch: PairBatch) -> None:
        """Add a training batch to the log interval's padding and speed."""
        real = batch.attention_mask.sum()
        filled = real if batch.packing is None else (batch.packing.blocks >= 0).sum()
        self._tokens_real = self._tokens_real + torch.stack([real, filled])
        self._tokens_computed += batch.computed_tokens
        self._tokens_padded += batch.padded_tokens

    def _pause(self) -> None:
        """Stop the clock of `training_step` until the next one."""
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the library's; its time does not count as training."""
        self._pause()
        figures: dict[str, float] = super().evaluate(*args, **options)
        return figures

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
        """Adds to the training log lines what was summed up since the last one: means of the
        objective's figures, ``padding`` (share of the places read that hold no token),
        ``tokens_saved`` (share of the places of padded rows that packing left out) and
        ``tokens_per_second`` (real ones, in this process)."""
        if "loss" in logs:
            for name, total in self._sums.items():
                logs[name] = (total / self._counts[name]).item()
            self._sums, self._counts = {}, defaultdict(int)
            real, filled = self._tokens_real.tolist()
            self._pause()
            logs["padding"] = 1 - filled / self._tokens_computed
            logs["tokens_saved"] = 1 - self._tokens_computed / self._tokens_padded
            logs["tokens_per_second"] = real / self._seconds
            self._tokens_real = torch.zeros_like(self._tokens_real)
            self._tokens_computed = self._tokens_padded = 0
            self._seconds = 0.0
        super().log(logs, start_time)

    def get_train_dataloader(self) -> Any:
        """Batches of `order`, where there is one."""
        if self.order is None:
            return super().get_train_dataloader()
        return self.accelerator.prepare(DataLoader(
            self.train_dataset, batch_sampler=self.order, collate_fn=self.data_collator
        ))

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
            rewards = self.objective.rewards
            whole = output.sequence_rewards if rewards is None else rewards(output, batch)
            chosen, rejected = split_pairs(whole, batch)
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
        violation[mask] = (output.rewards_at(mask) - best).abs().float()
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
