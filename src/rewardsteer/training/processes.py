"""Joining the launcher's processes, with a barrier that waits for hours if need be."""

from collections.abc import Callable
from datetime import timedelta

from accelerate import PartialState
from torch import distributed as dist

from rewardsteer.devices import has_accelerator
from rewardsteer.errors import RewardsteerError

# Preparing data and writing large models may take hours; a process that dies ends the others
# through the launcher.
PATIENCE = timedelta(days=7)


def join(timeout_s: int) -> tuple[PartialState, Callable[[], None]]:
    """The processes of the launcher, and a way to wait for all of them.

    Collectives on accelerators time out after ``timeout_s`` seconds (NCCL's default is ten
    minutes), which suits updates but not the preparation of data by the first process. The barrier
    therefore has a group of its own, on CPUs.

    Args:
        timeout_s: for collectives of the updates, as in `transformers.TrainingArguments`.

    Raises:
        RewardsteerError: (also by the function that waits) another process has ended.
    """
    # Pass cpu=True explicitly; otherwise accelerate sees one process.
    processes = PartialState(
        cpu=not has_accelerator(), timeout=timedelta(seconds=timeout_s)
    )
    if processes.num_processes == 1:
        return processes, lambda: None
    group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def wait() -> None:
        try:
            dist.barrier(group=group)
        except RuntimeError as error:
            raise RewardsteerError(
                f"Process {processes.process_index} of {processes.num_processes} stops, because "
                "another one has ended; that one's message tells why."
            ) from error

    # The first process keeps what the others meet by; it may end at once, when it refuses its
    # input, but not before all of them have the group.
    wait()
    return processes, wait
