"""Peak memory of training, and offloading of activations.

The peak of a process on Linux is read from the kernel, because psutil does not report it.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from rewardsteer.errors import ConfigError

_STATUS = Path("/proc/self/status")


def reset_peak_memory() -> None:
    """Reset the count of `peak_memory`, which works on CUDA devices only."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """Most memory held so far, in MiB: the current CUDA device's since `reset_peak_memory`, or
    without CUDA the whole process's since it began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if _STATUS.exists():
        # The kernel's own count of this process: getrusage starts a child at its parent's peak.
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def activation_offloading() -> Callable[[nn.Module], AbstractContextManager[object]]:
    """TRL's function from a model to the context in which a training step keeps its activations in
    the computer's memory.

    Raises:
        ConfigError: no accelerator with memory of its own, or trl is not installed.
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None or device.type == "mps":
        raise ConfigError(
            "activation_offload moves activations out of an accelerator's memory, and there is no "
            "accelerator with memory of its own here; set optimiser.activation_offload=false."
        )
    try:
        from trl.models.activation_offloading import get_act_offloading_ctx_manager
    except ImportError as error:
        raise ConfigError(
            "activation_offload needs trl, which is not installed; run 'pip install trl', or set "
            "optimiser.activation_offload=false."
        ) from error
    return lambda model: get_act_offloading_ctx_manager(model, warn_if_no_head=False)
