"""The measurement of guides runs end to end at its tiny size; its laws and tables are exact."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUNS = Path(__file__).parents[2] / "runs"


@pytest.mark.slow
def test_one_seed_at_the_tiny_size_and_its_tables(tmp_path, warm):
    def run(*line):
        return subprocess.run(
            [warm / "python", RUNS / line[0], *map(str, line[1:])], capture_output=True, text=True,
            env=os.environ | {"SIZE": "tiny"},
        )

    done = run("arithmetic_guidance.py", tmp_path, 0)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "guidance-0.json").read_text())
    assert {
        "none", "none T=0.5", "pargs @ 0.4", "distilled rank 4 @ 0.4", "outcome @ 0.4",
    } <= set(found["guidance"])
    assert found["guidance"]["none"]["kl"] == 0
    assert found["guidance"]["pargs @ 0.4"]["guided"] == 1
    assert {"random 0.3", "two-tier 0.3", "entropy, own share 0.3"} <= set(found["gates"])
    assert all(len(row["right"]) == 12 for row in found["gates"].values())
    for name, row in found["gates"].items():
        # Where nothing was learned, a scout's measures differ from its threshold by rounding alone.
        assert name.startswith("two-tier") or row["guided"] == row["guided_again"], name
    again = run("arithmetic_guidance.py", tmp_path, 0)
    assert (again.returncode, again.stdout) == (0, "")  # What is done is not done again.
    tables = run("summarise_guidance.py", tmp_path / "guidance-0.json")
    assert tables.returncode == 0, tables.stderr
    assert "| distilled rank 4 @ 0.4 |" in tables.stdout


@pytest.fixture(scope="module")
def summarise():
    sys.path.insert(0, str(RUNS))
    try:
        import summarise_guidance
    finally:
        sys.path.pop(0)
    return summarise_guidance


def test_the_share_of_the_teachers_gain(summarise):
    rng = np.random.default_rng(0)
    plain = (rng.random((4, 400)) < 0.5).astype(float)
    teacher = np.maximum(plain, rng.random((4, 400)) < 0.8)
    half = np.where(rng.random((4, 400)) < 0.5, teacher, plain)
    assert summarise.kept(teacher, teacher, plain).value == pytest.approx(1)
    assert summarise.kept(plain, teacher, plain).value == 0
    share = summarise.kept(half, teacher, plain)
    wanted = ((half - plain).mean(axis=1) / (teacher - plain).mean(axis=1)).mean()
    assert share.value == pytest.approx(wanted)
    assert share.low < 0.5 < share.high
    assert share.high - share.low < 0.3


def test_the_teacher_is_read_off_at_a_guides_own_divergence(summarise):
    rows = {"none": (0.0, "0001"), "t @ 1": (1.0, "0011"), "t @ 2": (2.0, "0111")}
    run = {"teacher": "t", "targets": [1, 2], "guidance": {
        name: {"kl": kl, "right": right} for name, (kl, right) in rows.items()
    }}
    assert summarise.teacher_at([run] * 3, [0.5, 1.25, 9.0]).tolist() == [
        [0, 0, 0.5, 1], [0, 0.25, 1, 1], [0, 1, 1, 1],
    ]
