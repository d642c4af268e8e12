"""Processes wait for the first one longer than a collective of an update may take."""

import os
import socket
import time

import pytest
import torch
from torch import distributed as dist

from rewardsteer.errors import RewardsteerError
from rewardsteer.training.processes import join
from tests.processes import leave, twice

TIMEOUT_S = 5  # also for the meeting, so that a busy machine does not make it fail


def joined(rank, port):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
    )
    return join(TIMEOUT_S)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def prepare_and_wait(rank, port):
    processes, wait = joined(rank, port)
    if processes.is_main_process:
        time.sleep(TIMEOUT_S + 2)
    began = time.monotonic()
    wait()
    assert processes.is_main_process or time.monotonic() - began > TIMEOUT_S
    if not processes.is_main_process:
        time.sleep(TIMEOUT_S + 2)
        leave()
    # A collective of an update is given up.
    with pytest.raises(RuntimeError):
        dist.all_reduce(torch.ones(1))
    leave()


@pytest.mark.slow
def test_the_others_wait_while_the_first_prepares(warm):
    twice(warm, prepare_and_wait, free_port())


def refuse_or_wait(rank, port):
    if rank == 1:
        make_group = dist.new_group

        def make_group_slowly(**settings):
            group = make_group(**settings)
            time.sleep(1)
            # A group that is being made asks the store, which the first process keeps.
            dist.distributed_c10d._get_default_store().add("made", 1)
            return group

        dist.new_group = make_group_slowly
    processes, wait = joined(rank, port)
    if processes.is_main_process:
        leave()
    with pytest.raises(RewardsteerError, match="Process 1 of 2 stops, because another one has"):
        wait()
    leave()


def test_the_others_end_with_a_sentence_where_the_first_ends(warm):
    twice(warm, refuse_or_wait, free_port())
