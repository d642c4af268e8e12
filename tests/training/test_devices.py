"""What training decides by device, on machines that this one is not."""

import logging
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from rewardsteer import devices
from rewardsteer.models.packing.choose import choose_packing
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training import arguments as module
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from rewardsteer.training.trainer import RewardTrainer
from tests.models.test_packing import build


def make(tmp_path, **options):
    return module.training_arguments(
        tmp_path, OptimiserConfig(**options), LogConfig(progress=False), 0, evaluate=False
    )


def test_segments_are_for_the_device_that_batches_are_read_on():
    model = build("llama", "scalar", torch.float32, "sdpa")
    assert choose_packing(model, 9, torch.device("cpu")).per_kernel_call is not None
    for kind in ("cuda", "mps", "xpu"):
        assert choose_packing(model, 9, torch.device(kind)).per_kernel_call is None


def test_packing_is_chosen_for_where_the_trainer_puts_the_model(monkeypatch, tmp_path):
    """The model is on the CPU until a trainer takes it."""
    asked = []

    class Stop(Exception):
        pass

    def choose(model, longest, device):
        asked.append(device)
        raise Stop

    built = []
    real = RewardTrainer.__init__
    monkeypatch.setattr(
        RewardTrainer, "__init__",
        lambda self, **options: (built.append(1), real(self, **options))[1],
    )
    monkeypatch.setattr("rewardsteer.training.fit.choose_packing", choose)
    rows = Dataset.from_list([
        {"id": "a", "prompt_ids": [5], "chosen_ids": [6, 7], "rejected_ids": [8], "margin": 0.0},
    ])
    with pytest.raises(Stop):
        fit(
            build("llama", "scalar", torch.float32, "sdpa"), SimpleNamespace(pad_token_id=0),
            build_objective([SimpleNamespace(name="bradley_terry", options={}, weight=1.0)]),
            rows, tmp_path, tmp_path / "log", optimiser=OptimiserConfig(),
            log=LogConfig(progress=False),
        )
    assert built
    assert asked == [torch.device("cpu")]


def test_several_gpus_without_a_launcher_are_one(monkeypatch, tmp_path, caplog):
    made = make(tmp_path)
    made._n_gpu = 2
    with caplog.at_level(logging.WARNING):
        assert module._on_one_device(made).n_gpu == 1
    assert "2 GPUs are visible" in caplog.text
    assert "accelerate launch" in caplog.text
    caplog.clear()
    assert module._on_one_device(make(tmp_path)).n_gpu < 2
    assert not caplog.text


@pytest.mark.parametrize(("kind", "pin", "workers"), [
    (None, False, 0), ("cuda", True, 2), ("mps", False, 2),
])
def test_batches_are_made_beside_an_accelerator(monkeypatch, tmp_path, kind, pin, workers):
    found = kind and torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: found is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found)
    given = {}
    monkeypatch.setattr(module, "TrainingArguments", lambda **values: given.update(values))
    monkeypatch.setattr(module, "_on_one_device", lambda made: made)
    make(tmp_path)
    assert given["use_cpu"] is (kind is None)
    assert given["dataloader_pin_memory"] is pin
    assert given["dataloader_num_workers"] == workers
    assert devices.has_accelerator() is (kind is not None)
