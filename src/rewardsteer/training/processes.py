"""Waiting for the first process, however long its work takes."""

from collections.abc import Callable
from datetime import timedelta

from accelerate import PartialState
from torch import distributed as dist

from rewardsteer.devices import has_accelerator

# Preparing data and writing large models may take hours; a process that dies ends the others
# through the launcher.
PATIENCE = timedelta(days=7)


def join(timeout_s: int) -> tuple[PartialState, Callable[[], None]]:
    """The processes of the launcher, and a way to wait for all of them.

    Collectives on accelerators give up after ``timeout_s`` seconds (NCCL's own default are ten
    minutes), which is right within an update and wrong while the first process prepares data. The
    waiting is done in a group of its own, by messages between CPUs.

    Args:
        timeout_s: for collectives of the updates, as in `transformers.TrainingArguments`.
    """
    # Pass cpu=True explicitly; otherwise accelerate sees one process.
    processes = PartialState(
        cpu=not has_accelerator(), timeout=timedelta(seconds=timeout_s)
    )
    if processes.num_processes == 1:
        return processes, lambda: None
    group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def wait() -> None:
        dist.barrier(group=group)

    return processes, wait
