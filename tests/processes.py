"""Work in two processes that speak gloo."""

import os
import sys

import torch
from torch import distributed as dist


def in_two_processes(work, folder, *arguments):
    """Call ``work(rank, *arguments)`` in each; what one of them raises is raised here.

    Args:
        work: a function that a fresh process can import.
        folder: for files of the meeting.
    """
    torch.multiprocessing.spawn(_take_part, (work, folder, arguments), nprocs=2)


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
