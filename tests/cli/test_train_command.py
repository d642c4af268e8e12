"""What `rewardsteer train` shows in a log file: phases, a summary, no lines of libraries."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from tests.fakes import save_tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("train")
    save_tiny(place / "base")
    rows = [
        {"prompt": f"q{i}", "chosen": "a good answer", "rejected": f"bad {i}"} for i in range(40)
    ]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, [
        "data", "prepare", "pairs", "--path", str(place / "pairs.jsonl"), "--tokenizer",
        str(place / "base"), "--out", str(place / "data"),
    ])
    assert done.exit_code == 0, done.output
    return place


def test_phases_a_summary_and_nothing_else(place):
    result = subprocess.run(
        [sys.executable, "-m", "rewardsteer", "train", "tldr/farma", "rounds=1", "base_model=base",
         "prepared=data", "data=null", "optimiser.max_steps=2", "optimiser.precision=fp32",
         "attn_implementation=null", "log.logging_steps=1", "log.save_steps=0", "--out", "out"],
        capture_output=True, text=True, cwd=place, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == "Loading base …"
    phases = [line for line in lines if line.startswith("phase ")]
    assert len(phases) == 1  # of one round
    assert all("loss" in line and "accuracy" in line for line in phases)
    assert any(line.startswith("reward model: out/model") for line in lines)
    assert lines[-1] == (
        "next: rewardsteer evaluate preference --reward-model out/model --data data"
    )
    for noise in ("kernels", "accelerator", "{'loss'", "packing", "\r", "\x1b", "%|"):
        assert noise not in result.stderr, noise
    # What is diagnosis stands in the log.
    assert "padding" in (place / "out" / "log.txt").read_text()


@pytest.mark.parametrize(("wrong", "said"), [
    ("data.sources.0.path=absent.jsonl", "Expected data at absent.jsonl, there is no such file"),
    ("base_model=.", "Expected a model folder at ., it holds no config.json"),
])
def test_what_is_not_there_is_refused_before_torch_is_imported(place, monkeypatch, wrong, said):
    monkeypatch.chdir(place)
    monkeypatch.setattr("rewardsteer.cli.train.loading", None)
    done = CliRunner().invoke(app, [
        "train", "pairs/bt", "base_model=base", "data.sources.0.path=pairs.jsonl", wrong,
        "--out", "new",
    ])
    assert done.exit_code == 2
    assert said in done.output
