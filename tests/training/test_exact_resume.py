"""A run that was cut short and goes on ends with the same weights and the same log."""

import errno
import json
import logging
import os
import random
import subprocess
import time

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rewardsteer.errors import OutputError
from rewardsteer.training import trainer as trainer_module
from rewardsteer.training.checkpoints import last_checkpoint, rewind_log
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.processes import begin
from tests.training.engines import log_lines, make_world, settings

pytestmark = pytest.mark.slow

# Log lines, evaluations, checkpoints and updates keep different steps, and dropout draws.
CHANGES = {
    "optimiser": {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 1.5,
    },
    "log": {"logging_steps": 3, "save_steps": 2},
    "lora": {"rank": 2, "dropout": 0.1}, "rounds": 2, "last_phase": "bradley_terry",
}
FARMA = "bradley_terry | max_constraint"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def farma(world, **changes):
    return TrainConfig.model_validate(settings(world, FARMA, 1, **(CHANGES | changes)))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(farma(world), out)
    return out


def assert_same(first, second):
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (first, second))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert log_lines(first) == log_lines(second)


class Stopped(BaseException):
    """Stands for an interruption."""


@pytest.mark.parametrize("moments", [[1, 9], [5, 6, 13, 17, 27]])
def test_stopped_before_any_update_the_log_and_the_weights_are_the_same(
    world, whole, tmp_path, monkeypatch, moments
):
    real = trainer_module.RewardTrainer.training_step
    steps = []

    def counted(self, *args, **options):
        steps.append(1)
        if len(steps) in moments:
            raise Stopped
        return real(self, *args, **options)

    monkeypatch.setattr(trainer_module.RewardTrainer, "training_step", counted)
    for _ in moments:
        with pytest.raises(Stopped):
            train(farma(world), tmp_path / "run", resume=True)
    train(farma(world), tmp_path / "run", resume=True)
    assert_same(whole, tmp_path / "run")


def victim(config, out):
    """A process of its own, which is killed from outside."""
    logging.disable()
    train(TrainConfig.model_validate(config), out, resume=True)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(world, whole, tmp_path, warm):
    draw, config, out = random.Random(0), farma(world).model_dump(), tmp_path / "run"
    left = 3
    while True:
        process = begin(warm, victim, config, out)
        while left and not (out / "phases").exists() and process.poll() is None:
            time.sleep(0.01)
        # The first one is killed soon after its phases begin; later ones also while they start.
        longest = 1.0 if left == 3 else 2.5
        try:
            said, _ = process.communicate(timeout=draw.uniform(0.0, longest) if left else 300)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            left -= 1
    assert process.returncode == 0, said
    assert left < 3, "it ended before it was killed once"
    assert_same(whole, out)


NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(("module", "name", "written", "error"), [
    (torch, "save", "optimizer.pt", OSError(errno.ENOSPC, NO_SPACE)),
    (safetensors.torch, "save_file", "model.safetensors", SafetensorError(NO_SPACE)),
])
def test_a_full_disk_keeps_the_last_checkpoint(
    world, tmp_path, monkeypatch, module, name, written, error
):
    real, saves = getattr(module, name), []

    def save(content, path, **options):
        if os.path.basename(path) == written and ".saving" in str(path):
            saves.append(1)
            if len(saves) == 3:
                raise error
        return real(content, path, **options)

    monkeypatch.setattr(module, name, save)
    config = TrainConfig.model_validate(
        settings(world, "bradley_terry", 1, log={"logging_steps": 2, "save_steps": 1})
    )
    out = tmp_path / "run"
    with pytest.raises(OutputError, match=r"checkpoint-3 cannot be written .*No space left.*"
                                          r"checkpoint-2 is kept.*--resume"):
        train(config, out)
    phase = out / "phases" / "01-bradley_terry"
    assert last_checkpoint(phase) == phase / "checkpoint-2"
    assert not (phase / ".saving").exists()
    train(config, out, resume=True)
    assert [line["step"] for line in log_lines(out) if "loss" in line] == [2, 4]


def test_half_written_checkpoints_are_named_and_passed_over(tmp_path, caplog):
    def make(name, step):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        state = {"global_step": step, "max_steps": 9}
        (folder / "trainer_state.json").write_text(json.dumps(state))

    make("checkpoint-4", 4)
    make("checkpoint-9", 9)  # of the last update: what ends a phase would be done twice
    make(".saving/checkpoint-8", 8)
    (tmp_path / "checkpoint-7").mkdir()
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert ".saving/checkpoint-8" in caplog.text
    assert "checkpoint-7" in caplog.text


def test_a_log_is_cut_where_it_will_be_written_again(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = ['{"phase": "01-a", "step": 1}\n', '{"phase": "02-b", "step": 1}\n', '{"phase": "02']
    log.write_text("".join(lines))
    rewind_log(log, "03-c", None)
    assert log.read_text() == "".join(lines[:2])
    rewind_log(log, "02-b", None)
    assert log.read_text() == lines[0]
    rewind_log(tmp_path / "none.jsonl", "02-b", None)
