"""Checkpoints of a `transformers.Trainer`: written whole or not at all; of a partly frozen model,
the trained weights alone."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from rewardsteer.training import checkpoints
from rewardsteer.training.weights import load_weights, trained_weights


class CheckpointingTrainer(Trainer):
    """A trainer with atomic checkpoints from which training resumes exactly.

    Args:
        log_lines: the file that log lines go to; checkpoints note its length.
        options: passed on to `transformers.Trainer`.
    """

    def __init__(self, *, log_lines: Path, **options: Any) -> None:
        super().__init__(**options)
        self.log_lines = log_lines
        self._saving: Path | None = None
        self._partly_frozen = is_partly_frozen(self.model)
        if self._partly_frozen:
            accept_missing_frozen_weights(self.model)

    def progress(self) -> dict[str, Any]:
        """The state of each process that a checkpoint adds to the library's."""
        raise NotImplementedError

    # Private names of the library are overridden where it has no hook: it writes a checkpoint into
    # its final folder, not beside it, and the sums of a log interval are part of no checkpoint.

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As the library's, but atomic, and with the state that an exact resume needs."""
        out = Path(self.args.output_dir)
        place = out / f"checkpoint-{self.state.global_step}"
        with checkpoints.named_failure(f"The checkpoint {place}", out):
            self._saving = checkpoints.begin(out, self.accelerator)
            written = self._saving / place.name
            try:
                super()._save_checkpoint(model, trial)
                checkpoints.write_progress(
                    written, self.accelerator, self.log_lines, self.progress()
                )
                self.accelerator.wait_for_everyone()
                best = self.state.best_global_step == self.state.global_step
                if not self.args.load_best_model_at_end:
                    self.state.best_model_checkpoint = None  # none is kept for being the best
                elif best:
                    self.state.best_model_checkpoint = str(place)
                if self.is_world_process_zero():
                    self.state.save_to_json(str(written / "trainer_state.json"))
                    checkpoints.publish(written, place)
                    checkpoints.keep_newest(
                        out, self.state.best_model_checkpoint, self.args.save_total_limit
                    )
            finally:
                if self.is_world_process_zero():
                    shutil.rmtree(self._saving, ignore_errors=True)
                self._saving = None
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the library's; of a partly frozen model the trained weights alone."""
        if not self._partly_frozen:
            super().save_model(output_dir, _internal_call)
            return
        weights = whole_trained_weights(self)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._partly_frozen and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            save_engine_state(self, output_dir)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._partly_frozen:
            load_weights(self.model, Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._partly_frozen and not self.is_deepspeed_enabled:
            best = self.state.best_model_checkpoint
            load_weights(self.model, Path(best) / SAFE_WEIGHTS_NAME)
        else:
            super()._load_best_model()


def is_partly_frozen(model: nn.Module) -> bool:
    """Whether some weights are not trained."""
    return not all(one.requires_grad for one in model.parameters())


def whole_trained_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The trained weights by name, float32, on the CPU of the first process; empty in the others.
    Every process calls this, because an engine may have sharded them."""
    keep = trainer.args.should_save
    # Gathered one by one.
    return {name: whole.cpu() for name, whole in trained_weights(trainer.model) if keep}


def save_engine_state(trainer: Any, folder: str) -> None:
    """Write the optimiser and the schedule of FSDP2 or DeepSpeed. Every process calls this.

    DeepSpeed's own files hold the trained weights as well, which it loads from there.
    """
    if trainer.is_fsdp_enabled:
        from accelerate.utils import save_fsdp_optimizer

        save_fsdp_optimizer(
            trainer.accelerator.state.fsdp_plugin, trainer.accelerator, trainer.optimizer,
            trainer.model, folder,
        )
        theirs = False
    else:
        from accelerate.utils import DeepSpeedSchedulerWrapper

        trainer.model_wrapped.save_checkpoint(folder, exclude_frozen_parameters=True)
        theirs = isinstance(trainer.lr_scheduler, DeepSpeedSchedulerWrapper)
    if trainer.args.should_save and not theirs:
        torch.save(trainer.lr_scheduler.state_dict(), Path(folder) / SCHEDULER_NAME)


def accept_missing_frozen_weights(model: nn.Module) -> None:
    """Let `load_state_dict`, which DeepSpeed uses, accept checkpoints without the frozen
    weights."""
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}

    def forgive(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [name for name in keys.missing_keys if name not in frozen]

    model.register_load_state_dict_post_hook(forgive)
