"""Commands that a signal ends while they write and that go on with --resume: the results are those
of a run that nobody ended. (Scoring: tests/evaluation/test_kills.py, training:
tests/training/test_exact_resume.py.)"""

import hashlib
import json
import random
import signal
import subprocess
import time

import pytest

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
        "distil": [
            "distil", "pairs/distil", f"policy={folders / 'policy'}",
            f"teacher={folders / 'bt'}", f"prompts={place / 'prompts.jsonl'}",
            "sampling.max_new_tokens=8", "optimiser.max_steps=8", "log.save_steps=2",
            "optimiser.per_device_train_batch_size=4", "optimiser.precision=fp32",
            "log.progress=false", "--out",
        ],
    }[name]


@pytest.fixture
def begun(warm):
    """Begins a process that runs a command."""
    return lambda words: subprocess.Popen(
        [warm / "rewardsteer", *map(str, words)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )


def status(process):
    """The status of a process that has ended, and with it what it started."""
    process.communicate(timeout=300)
    return process.returncode


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


def rounded(value):
    """Equal to what differs in the last digits of float32, as rewards do that were computed in
    another batch."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize(("name", "sent"), [
    ("generate", signal.SIGINT), ("distil", signal.SIGKILL),
])
def test_it_goes_on_to_the_same_results(folders, place, begun, name, sent):
    words, end = command(name, folders, place), ".jsonl" if name == "generate" else ""
    whole, output = (place / f"{name}-{kind}{end}" for kind in ("whole", "resumed"))
    assert status(begun([*words, whole])) == 0
    expected = contents(whole)
    assert expected
    process, deadline = begun([*words, output]), time.monotonic() + 300
    while written(output)[1] == 0 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.Random(0).uniform(0.0, 0.3))
    process.send_signal(sent)
    # One that had ended just before proves nothing, and that is no fault.
    assert status(process) in (0, 130 if sent is signal.SIGINT else -sent)
    assert status(begun([*words, output, "--resume"])) == 0
    assert contents(output) == rounded(expected)


def written(output):
    """How much of an output there is: files, and bytes in them."""
    files = [output] if output.is_file() else list(output.rglob("*"))
    return len(files), sum(one.stat().st_size for one in files if one.is_file())
