"""Commands that a signal ends at random moments and that go on with --resume: the results are those
of a run that nobody ended. (Scoring: tests/evaluation/test_kills.py, training:
tests/training/test_exact_resume.py.)"""

import hashlib
import json
import os
import random
import signal
import time

import pytest

from rewardsteer.cli.main import app
from tests.api.conftest import folders

pytestmark = pytest.mark.slow
__all__ = ["folders"]

# What is measured anew: times, and memory.
MEASURED = ("second", "memory", "runtime")


@pytest.fixture(scope="module")
def place(folders, tmp_path_factory):
    place = tmp_path_factory.mktemp("kills")
    rows = [{"id": f"p{i}", "prompt": f"{i}+{i}="} for i in range(40)]
    (place / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def command(name, folders, place):
    """The words of a command, the last of which is the option for its output."""
    models = ["--model", folders / "policy", "--prompts", place / "prompts.jsonl"]
    return {
        "generate": [
            "generate", *models, "--reward-model", folders / "bt", "--method", "best_of_n", "--n",
            3, "--max-new-tokens", 16, "--batch-size", 4, "--output",
        ],
        "evaluate": [
            "evaluate", "generation", *models, "--limit", 12, "--methods",
            f"none,farma={folders / 'farma'}", "--judge", folders / "bt", "--out",
        ],
        "distil": [
            "distil", "pairs/distil", f"policy={folders / 'policy'}",
            f"teacher={folders / 'bt'}", f"prompts={place / 'prompts.jsonl'}",
            "sampling.max_new_tokens=8", "optimiser.max_steps=8", "log.save_steps=2",
            "optimiser.per_device_train_batch_size=4", "optimiser.precision=fp32",
            "log.progress=false", "--out",
        ],
    }[name]


def begun(words):
    """The id of a forked process that runs the command; it prints nothing."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        app([str(word) for word in words])
    except SystemExit as end:
        status = end.code or 0
    except KeyboardInterrupt:  # before the command itself began
        status = 130
    finally:
        os._exit(status)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def without_measures(value):
    if isinstance(value, dict):
        return {
            key: without_measures(one) for key, one in value.items()
            if not any(part in key for part in MEASURED)
        }
    return [without_measures(one) for one in value] if isinstance(value, list) else value


def contents(output):
    """What a command wrote, by file: without times, drawings of times and logs of the process."""
    found = {}
    for path in [output] if output.is_file() else sorted(output.rglob("*")):
        name = "" if path == output else str(path.relative_to(output))
        if path.suffix in (".jsonl", ".json"):
            rows = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [without_measures(json.loads(row)) for row in rows]
        elif path.suffix in (".arrow", ".safetensors"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found.pop("run.json", None)
    return json.loads(json.dumps(found).replace(str(output), "OUTPUT"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
@pytest.mark.parametrize("name", ["generate", "evaluate", "distil"])
def test_it_goes_on_to_the_same_results(folders, place, name, sent):
    words, end = command(name, folders, place), ".jsonl" if name == "generate" else ""
    whole = place / f"{name}-whole{end}"
    began = time.monotonic()
    if not whole.exists():
        assert ended(begun([*words, whole])) == 0
    expected, seconds = contents(whole), time.monotonic() - began
    assert expected
    draw, output, stopped = random.Random(0), place / f"{name}-{sent.name}{end}", 0
    for _ in range(4):
        child = begun([*words, output, *(["--resume"] if output.exists() else [])])
        deadline = time.monotonic() + 60
        while not output.exists():  # nothing was begun yet
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(draw.uniform(0.05, min(seconds / 3, 2.0)))
        os.kill(child, sent)
        status = ended(child)
        assert status in (0, -signal.SIGKILL if sent is signal.SIGKILL else 130)
        stopped += status != 0
    assert stopped
    assert ended(begun([*words, output, "--resume"])) == 0
    assert contents(output) == expected
