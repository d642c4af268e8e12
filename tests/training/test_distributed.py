"""Two processes on a CPU train what one process trains on the same global batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from tests.fakes import tiny_causal_lm


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    tokenizer = build_tokenizer()
    tiny_causal_lm(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    source = {"name": "arithmetic", "options": {"rows": 40}}
    prepare(DataConfig(source=source, drop_overlap=False), tokenizer, tmp_path / "data")

    def run(processes):
        out = tmp_path / str(processes)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc_per_node", str(processes), "-m", "rewardsteer", "train", "arithmetic/bt",
            f"base_model={tmp_path / 'base'}", f"prepared={tmp_path / 'data'}", "phases.0.rows=32",
            f"optimiser.batch_size={8 // processes}", "optimiser.epochs=1", "log.log_steps=1",
            "log.progress=false", "log.echo=false", "--out", str(out),
        ]
        environment = {
            **os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr[-3000:]
        lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
        return [line["loss"] for line in lines if "loss" in line], out / "model"

    (one, first), (two, second) = run(1), run(2)
    assert len(one) == len(two) == 4
    assert one == pytest.approx(two, abs=1e-5)
    theirs = load_file(second / "model.safetensors")
    for name, weight in load_file(first / "model.safetensors").items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-4, rtol=1e-4)
