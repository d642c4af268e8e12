"""Python functions in processes of their own, also in two that speak gloo."""

import os
import pickle
import subprocess
import sys

import torch
from torch import distributed as dist

CALL = (
    "import pickle, sys; work, arguments = pickle.loads(bytes.fromhex(sys.argv[1])); "
    "work(*arguments)"
)


def begin(warm, work, *arguments):
    """A process that calls ``work(*arguments)``, begun.

    Args:
        warm: the folder of warm commands.
        work: a function that another process can import.
    """
    call = pickle.dumps((work, arguments)).hex()
    return subprocess.Popen(
        [warm / "python", "-c", CALL, call], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )


def twice(warm, work, *arguments):
    """Call ``work(rank, *arguments)`` in two processes; what one of them raises is shown here."""
    processes = [begin(warm, work, rank, *arguments) for rank in range(2)]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()


def in_two_processes(warm, work, folder, *arguments):
    """As `twice`, in processes that speak gloo.

    Args:
        folder: for files of the meeting.
    """
    twice(warm, _take_part, work, folder, arguments)


def _take_part(rank, work, folder, arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    work(rank, *arguments)
    dist.destroy_process_group()
    leave()


def leave():
    """End this process, whose work is done, at once.

    A device mesh keeps gloo's threads to the end of the process. One that lets go of a tensor while
    Python shuts down would end it with SIGABRT.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
