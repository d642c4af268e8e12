"""`python -m tests.training.on_cpu JOBS.json`: trainings one after another in launched processes
that have no accelerators.

FSDP2 and DeepSpeed run on several such processes only when accelerate takes them for devices that
speak gloo. Each job is ``{"config": settings, "out": folder, "resume": bool, "stop_at": update or
null}``; one that is stopped is left as an interruption leaves it. What a job refuses is written to
``OUT.error``. Settings with a teacher are those of a distillation.
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType

if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & os.environ.keys():
    made = PartialState.__init__
    PartialState.__init__ = lambda self, cpu=False, **options: made(self, **options)
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)

if "ACCELERATE_USE_DEEPSPEED" in os.environ:
    # Its own reductions in shared memory would be compiled first, which takes a minute, and a
    # process that is killed then leaves a lock that all later ones wait for. `deepspeed.comm.torch`
    # as an attribute is torch itself.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None

    # ZeRO-3 leaves small parameters whole, which all of these models' are.
    zero = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    zero.model_fields["param_persistence_threshold"].default = 0
    zero.model_rebuild(force=True)

from rewardsteer.configuration import load_config
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.distillation.run import distil
from rewardsteer.errors import RewardsteerError
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from rewardsteer.training.trainer import RewardTrainer
from tests.processes import leave


class Stopped(BaseException):
    """Stands for an interruption."""


real = RewardTrainer.compute_loss


def run(job):
    """One training."""
    def compute_loss(self, *args, **options):
        if self.state.global_step == job.get("stop_at"):
            raise Stopped
        return real(self, *args, **options)

    RewardTrainer.compute_loss = compute_loss
    out = Path(job["out"])
    try:
        if "teacher" in job["config"]:
            distil(load_config(DistilConfig, job["config"]), out, device="cpu")
        else:
            train(TrainConfig.model_validate(job["config"]), out, resume=job.get("resume", False))
    except Stopped:
        pass
    except RewardsteerError as error:
        out.with_suffix(".error").write_text(str(error))


if __name__ == "__main__":
    # As in tests/conftest.py.
    gc.collect()
    gc.freeze()
    for each in json.loads(Path(sys.argv[1]).read_text()):
        run(each)
    leave()
