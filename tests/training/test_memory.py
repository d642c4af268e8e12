"""Peak memory is in every run's record; activations are offloaded where there is a place to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.errors import ConfigError
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training import fit as fit_module
from rewardsteer.training import memory
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.memory import activation_offloading, peak_memory, reset_peak_memory
from rewardsteer.training.run import train
from tests.fakes import tiny_causal_lm

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="counts the device's memory there")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tokenizer = build_tokenizer()
    tiny_causal_lm(vocab_size=len(tokenizer)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    source = {"name": "arithmetic", "options": {"rows": 20}}
    prepare(DataConfig(source=source, drop_overlap=False), tokenizer, folder / "data")
    return folder


def settings(world, **optimiser):
    return TrainConfig.model_validate({
        "base_model": str(world / "base"),
        "prepared": str(world / "data"),
        "phases": [{"objective": [{"name": "bradley_terry"}], "rows": 8}],
        "rounds": 2,
        "optimiser": {"learning_rate": 1e-3, "per_device_train_batch_size": 4, **optimiser},
        "log": {"progress": False, "logging_steps": 1, "print_logs": False},
    })


@no_cuda
def test_peak_counts_this_process_and_stays_after_memory_is_freed():
    code = (
        "from rewardsteer.training.memory import peak_memory\n"
        "before = peak_memory()\n"
        "block = b'x' * (300 * 2**20)\n"
        "del block\n"
        "print(before, peak_memory())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    before, after = map(float, output.stdout.split())
    assert 10 < before < 5000
    assert 150 < after - before < 301


@no_cuda
def test_peak_without_proc(monkeypatch):
    told = peak_memory()
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    # getrusage may count a parent's peak too, so only the unit is checked.
    assert 0.9 < peak_memory() / told < 50
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 0.9 < peak_memory() * 1024 / told < 50


def test_peak_of_a_device(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append(1))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    reset_peak_memory()
    assert calls == [1]
    assert peak_memory() == 3.0


@pytest.mark.slow
def test_every_phase_records_its_peak(world, tmp_path):
    train(settings(world), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    logged = [line["peak_memory_mib"] for line in lines if "peak_memory_mib" in line]
    for name in ("state.json", "result.json"):
        record = json.loads((tmp_path / "run" / name).read_text())
        phases = record["phases"] if name == "result.json" else record
        assert [phase["peak_memory_mib"] for phase in phases] == logged
    assert len(logged) == 2
    assert min(logged) > 1


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without accelerator")
def test_offloading_needs_an_accelerator(world, tmp_path):
    with pytest.raises(ConfigError, match="no accelerator with memory of its own"):
        train(settings(world, activation_offload=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_offloading_needs_trl(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert callable(activation_offloading())
    monkeypatch.setitem(sys.modules, "trl.models.activation_offloading", None)
    with pytest.raises(ConfigError, match="pip install trl"):
        activation_offloading()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    with pytest.raises(ConfigError, match="no accelerator"):
        activation_offloading()


def weights(folder):
    return RewardModel.from_pretrained(folder).state_dict()


@pytest.mark.slow
def test_each_training_step_runs_in_the_context(world, tmp_path, monkeypatch):
    plain = weights(train(settings(world, gradient_accumulation_steps=2), tmp_path / "plain"))
    packed, inside, steps = [], [], []

    class Noted(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, model):
            assert isinstance(model, RewardModel)
            super().__init__(lambda tensor: packed.append(1) or tensor.clone(), lambda t: t)

        def __enter__(self):
            inside.append(True)
            return super().__enter__()

        def __exit__(self, *error):
            inside.pop()
            return super().__exit__(*error)

    real = torch.Tensor.backward

    def backward(self, *args, **options):
        steps.append(bool(inside))
        return real(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(fit_module, "activation_offloading", lambda: Noted)
    monkeypatch.setattr("rewardsteer.training.checks.activation_offloading", lambda: None)
    config = settings(world, gradient_accumulation_steps=2, activation_offload=True)
    offloaded = weights(train(config, tmp_path / "offloaded"))
    assert packed
    assert steps == [True] * 4  # two phases of two batches
    assert not inside
    for name, value in plain.items():
        assert torch.equal(value, offloaded[name]), name


@needs_cuda
def test_offloading_changes_no_weight(world, tmp_path):
    plain = weights(train(settings(world), tmp_path / "plain"))
    config = settings(world, activation_offload=True)
    offloaded = weights(train(config, tmp_path / "offloaded"))
    for name, value in plain.items():
        torch.testing.assert_close(value, offloaded[name], atol=1e-5, rtol=1e-4)
