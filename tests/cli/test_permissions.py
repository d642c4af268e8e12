"""Read-only folders and files without permission: one sentence, before long work.

The commands run in a process without the capability by which root reads and writes everything.
"""

import json
import shutil
import subprocess
import sys

import pytest

from tests.api.conftest import folders

__all__ = ["folders"]

# Runs each command line of a JSON list; prints status, standard error and what was raised.
HARNESS = """
import json, os, sys
from typer.testing import CliRunner
from rewardsteer.cli.main import app
assert not os.access(sys.argv[1], os.W_OK)
found = []
for line in json.load(sys.stdin):
    result = CliRunner().invoke(app, line)
    error = result.exception
    found.append([result.exit_code, result.stderr,
                  "" if isinstance(error, SystemExit) else repr(error)])
print(json.dumps(found))
"""


def without_root(locked, lines):
    """What the command lines give in a process that permissions bind."""
    words = [sys.executable, "-c", HARNESS, str(locked)]
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        drop = "-dac_override,-dac_read_search"
        tried = [setpriv, f"--bounding-set={drop}", f"--inh-caps={drop}"]
        if subprocess.run([*tried, "true"], capture_output=True).returncode == 0:
            words = [*tried, *words]
    done = subprocess.run(
        words, input=json.dumps([[str(one) for one in line] for line in lines]), text=True,
        capture_output=True,
    )
    if "assert not os.access" in done.stderr:
        pytest.skip("this process may write everywhere")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def place(folders, tmp_path):
    row = {"prompt": "p", "completion": "c", "chosen": "a", "rejected": "b"}
    for name in ("rows.jsonl", "secret.jsonl"):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    (tmp_path / "secret.yaml").write_text("none: {method: none}\n")
    for name in ("locked", "data"):
        (tmp_path / name).mkdir()
    shutil.copytree(folders / "bt", tmp_path / "reward")
    shutil.copytree(folders / "policy", tmp_path / "model")
    (tmp_path / "fixed").mkdir()
    modes = {"fixed": 0o555, "secret.jsonl": 0, "secret.yaml": 0, "locked": 0,
             "reward/model.safetensors": 0, "model/model.safetensors": 0}
    for name, mode in modes.items():
        (tmp_path / name).chmod(mode)
    yield tmp_path
    for name in modes:
        (tmp_path / name).chmod(0o755)


@pytest.mark.slow
def test_every_refusal_is_one_sentence(folders, place):
    model, reward, out = folders / "policy", folders / "bt", place / "fixed" / "x"
    rows, secret, locked = place / "rows.jsonl", place / "secret.jsonl", place / "locked"
    lm, rm = ("--model", model), ("--reward-model", reward)
    pairs = ("train", "pairs/bt", f"base_model={model}")
    lines = [
        # Outputs: refused before anything loads.
        ((*pairs, f"data.sources.0.path={rows}", "--out", out), "read-only", False),
        (("score", *rm, "--input", rows, "--output", f"{out}.jsonl"), "read-only", False),
        (("generate", *lm, "--prompts", rows, "--output", out), "read-only", False),
        (("import", reward, out), "read-only", False),
        (("evaluate", "runs", place, place, "--out", out), "read-only", False),
        # Models, and files in their folders.
        (("generate", "--model", locked, "--prompts", rows, "--output", place / "y.jsonl"),
         f"no permission to read {locked}", False),
        (("generate", "--model", place / "model", "--prompts", rows, "--output",
          place / "y.jsonl"), "model/model.safetensors", False),
        (("score", "--reward-model", place / "reward", "--input", rows, "--output",
          place / "y.jsonl"), "reward/model.safetensors", False),
        (("doctor", locked), f"{locked}", True),
        ((*pairs, f"prepared={locked}", "--out", place / "y"), f"{locked}", False),
        (("train", "pairs/bt", f"base_model={locked}", f"data.sources.0.path={rows}", "--out",
          place / "y"), f"no permission to read {locked}", False),
        # Data and settings.
        ((*pairs, f"data.sources.0.path={secret}", "--out", place / "y"), f"{secret}", True),
        (("data", "prepare", "pairs", "--path", locked, "--tokenizer", model, "--out",
          place / "z"), "cannot be read: Permission denied; change its", True),
        (("score", *rm, "--input", rows, "--output", place / "y.jsonl", "--goal", secret),
         f"{secret} cannot be read", False),
        (("evaluate", "generation", *lm, "--prompts", rows, "--methods", place / "secret.yaml",
          "--judge", reward), "secret.yaml cannot be read", False),
    ]
    found = without_root(place / "fixed", [line for line, _, _ in lines])
    for (line, words, late), (status, said, error) in zip(lines, found, strict=True):
        assert (status, error) == (2, ""), (line, said, error)
        assert said.splitlines()[-1].startswith("error: "), (line, said)
        assert words in said.splitlines()[-1], (line, said)
        assert late or "Loading" not in said, (line, said)
