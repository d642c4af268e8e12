"""A scoring run that is killed at any moment and resumed leaves the file of an undisturbed one."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from rewardsteer.data.rows import ListedRows
from rewardsteer.data.template import Template
from rewardsteer.evaluation.scoring import Settings, score_rows
from tests.evaluation.test_scoring import make

ROWS = [
    {"prompt": f"Sum {number // 4}: ", "completion": "x" * (number % 7) + str(number)}
    for number in range(40)
]


class Fake:
    """Stands for a reward model that is somewhere else."""

    fingerprint, template, name = "f", Template(), "fake"


def fake_engine(shards, missing):
    for shard in missing:
        first = shard * shards.step
        rows = ROWS[first : first + shards.rows_in(shard)]
        shards.write(shard, [row | {"reward": first + at / 8} for at, row in enumerate(rows)])
        yield shard


def run(output, **how):
    return score_rows(Fake(), ListedRows(ROWS, 16), output, Settings(), engine=fake_engine, **how)


def in_a_child(action):
    """Exit status of a forked process that does it; above 128, of the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(step, after):
    """Make the process end, as a kill would, before or after its so-manieth change on disk."""
    done = []

    def dying(real):
        def call(*arguments, **options):
            done.append(1)
            if len(done) == step and not after:
                os._exit(9)
            here = len(done) == step
            try:
                return real(*arguments, **options)
            finally:
                if here and after:
                    os._exit(9)
        return call

    os.fsync, os.mkdir = dying(os.fsync), dying(os.mkdir)
    Path.replace, shutil.rmtree = dying(Path.replace), dying(shutil.rmtree)


@pytest.mark.parametrize(
    ("ending", "after"), [("jsonl", False), ("jsonl", True), ("parquet", True)]
)
def test_killed_at_every_change_on_disk(tmp_path, ending, after):
    whole, steps = tmp_path / f"whole.{ending}", 0
    expected = run(whole)
    while True:
        steps += 1
        output = tmp_path / str(steps) / f"y.{ending}"

        def action(output=output, step=steps):
            die_at(step, after)
            run(output)

        status = in_a_child(action)
        assert status in (0, 9)
        if output.exists():  # whole or not at all
            assert output.read_bytes() == whole.read_bytes()
        assert run(output, resume=True) == expected
        assert output.read_bytes() == whole.read_bytes()
        assert {path.name for path in output.parent.iterdir()} == {
            output.name, output.name + ".run.json"
        }
        if status == 0:
            break
    assert steps > 12  # three shards, each written and renamed, then the whole


def test_killed_twice_at_the_same_place(tmp_path):
    run(tmp_path / "whole.jsonl")
    output = tmp_path / "y.jsonl"
    for _ in range(3):
        assert in_a_child(lambda: (die_at(7, False), run(output, resume=True))) == 9
    run(output, resume=True)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_killed_at_random_moments(tmp_path):
    """The real thing with a tiny model: SIGKILL from outside."""
    scorer = make(tmp_path, "model")
    rows = ListedRows(ROWS * 15, 25)
    began = time.monotonic()
    expected = score_rows(scorer, rows, tmp_path / "whole.jsonl", Settings(tokens=True))
    seconds, output, kills = time.monotonic() - began, tmp_path / "y.jsonl", 0
    rng, deadline = random.Random(0), time.monotonic() + 60
    while kills < 5:
        assert time.monotonic() < deadline
        child = os.fork()
        if child == 0:
            try:
                score_rows(scorer, rows, output, Settings(tokens=True), resume=True)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.0, seconds / 3))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        kills += os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        if output.exists():
            break
    assert kills >= 3
    assert score_rows(
        scorer, rows, output, Settings(tokens=True), resume=True
    ) == expected
    lines = output.read_text().splitlines()
    assert lines == (tmp_path / "whole.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in lines] == [
        row["completion"] for row in ROWS * 15
    ]
