"""The studies' scripts from end to end at their tiny size, on SmolLM2 cut to two layers."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.real.conftest import first_layers

ROOT = Path(__file__).parents[2]
DATA = (ROOT / "../shared/data").resolve()

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the public rows in ../shared/data")


@pytest.fixture(scope="module")
def short(smollm2, tmp_path_factory):
    """The first two layers, in float32: few CPUs compute quickly in bfloat16."""
    return first_layers(smollm2, 2, tmp_path_factory.mktemp("short"), torch.float32)


@pytest.fixture(scope="module")
def study(short, warm):
    """Runs a study's script; what it printed."""
    environment = os.environ | {
        "PATH": f"{warm}{os.pathsep}{os.environ['PATH']}", "SIZE": "tiny", "DATA": str(DATA),
        "BASE": str(short), "TARGETS": ".*_proj", "HF_HUB_OFFLINE": "1",
    }

    def run(*line):
        done = subprocess.run(
            [str(one) for one in line], env=environment, capture_output=True, text=True, cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    return run


def test_guidance(study, tmp_path):
    study("bash", "runs/smollm2_guidance.sh", 0, tmp_path)
    seed = tmp_path / "seed-0"
    found = json.loads((seed / "generation" / "summary.json").read_text())["methods"]
    assert found.keys() == {
        "none", "none T=0.5", "none greedy", "untrained head w=1", "best of n", "args w=1",
        "pargs w=1", "genarm w=1", "farma w=1", "farma gated w=1", "farma random gate w=1",
        "distilled w=1", "cards", "speculative rejection", "beam w=1",
    }
    for name, own in found.items():
        assert own["count"] == 2, name
        assert abs(own["reward"]) < 1e3, name
        assert (own["rm_calls_per_token"] > 0) == (not name.startswith("none")), name
    assert (seed / "report.html").stat().st_size > 10_000


def test_solutions(study, tmp_path):
    printed = study("bash", "runs/smollm2_solutions.sh", 0, tmp_path)
    for plan in ("baseline", "goal"):
        found = json.loads((tmp_path / f"{plan}-0" / "metrics" / "metrics.json").read_text())
        for benchmark, own in found.items():
            assert 0 <= own["auroc"] <= 1, (plan, benchmark)
            assert own["questions"] > 0, (plan, benchmark)
            assert {"source", "length", "random"} <= own["controls"].keys()
    assert "goal" in printed


def test_guides_at_equal_kl(study, tmp_path):
    line = ("bash", "-c", f"python runs/sentiment_guidance.py {DATA} {tmp_path} 0")
    study(*line)
    found = json.loads((tmp_path / "guidance-0.json").read_text())
    guides = {"pargs", "zeros policy_mean", "distilled rank 16"}
    assert guides < found["ranking"].keys()  # The judges are ranked, too.
    assert {f"{name} @ 1" for name in guides} < found["guidance"].keys()
    assert found["guidance"]["none"]["kl"] == 0
    assert found["guidance"]["pargs @ 1"]["kl"] > 0.1
    for name, row in (found["guidance"] | found["gates"]).items():
        assert len(row["right"]) == 4, name
        assert 0 < row["accuracy"] < 1, name
    assert found["gates"]["random 0.3"]["guided"] < 1
    assert study(*line) == ""  # What is done is not done again.
