"""Checkpoints of a model that has frozen weights, as one with LoRA: they hold what is trained
(adapters and head) under every engine, and never the base model.

The libraries leave frozen weights out for peft's own class alone, which a reward model with a head
is not.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer import SCHEDULER_NAME

from rewardsteer.training.weights import trained_weights


def is_partly_frozen(model: nn.Module) -> bool:
    """Whether some weights are not trained."""
    return not all(one.requires_grad for one in model.parameters())


def whole_trained_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The trained weights by name, float32, on the CPU of the first process; empty in the others.
    Every process calls this, as an engine may have spread them."""
    keep = trainer.args.should_save
    # Gathered one by one.
    return {name: whole.cpu() for name, whole in trained_weights(trainer.model) if keep}


def save_engine_state(trainer: Any, folder: str) -> None:
    """Write the optimiser and the schedule of FSDP2 or DeepSpeed. Every process calls this.

    DeepSpeed's own files hold the trained weights too; it reads them back from there.
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
    """Let `load_state_dict` keep the frozen weights that a checkpoint leaves out; DeepSpeed loads
    what it saved with it."""
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}

    def forgive(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [name for name in keys.missing_keys if name not in frozen]

    model.register_load_state_dict_post_hook(forgive)
