"""What commands do in their first second: checks, one line, and nothing heavy before it."""

import errno
import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from rewardsteer import processors
from rewardsteer.cli import starting
from rewardsteer.cli.group import Group
from rewardsteer.cli.main import app
from rewardsteer.errors import CheckpointError, OutputError

# Runs every command line of a JSON list in turn in a process in which importing one of the heavy
# libraries ends the command with status 77; prints status and standard error of each.
HARNESS = """
import json, sys

class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "datasets", "matplotlib"):
            raise SystemExit(77)

sys.meta_path.insert(0, Heavy())
from typer.testing import CliRunner
from rewardsteer.cli.main import app
found = []
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, line)
    error = result.exception
    found.append([result.exit_code, result.stderr, "" if isinstance(error, SystemExit) else
                  repr(error)])
print(json.dumps(found))
"""


def run_without_heavy(folder, lines):
    result = subprocess.run(
        [sys.executable, "-c", HARNESS, json.dumps([[str(one) for one in line] for line in lines])],
        capture_output=True, text=True, cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starting")
    for name in ("model", "reward"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    (folder / "data").mkdir()
    (folder / "data" / "manifest.json").write_text('{"fingerprint": "x", "counts": {}}')
    rows = [{"prompt": "p", "completion": "c", "chosen": "a", "rejected": "b"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qa.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (folder / "goal.npy").write_bytes(b"")
    (folder / "methods.yaml").write_text("none: {method: none}\n")
    (folder / "records").mkdir()
    (folder / "records" / "manifest.json").write_text(json.dumps({
        "policy": "p", "teacher": "t", "tokenizer": "v", "template": {}, "settings": {}, "shards": 1
    }))
    return folder


RM, LM = ("--reward-model", "reward"), ("--model", "model")
STARTS = {
    "data prepare": ("data", "prepare", "pairs", "--path", "rows.jsonl", "--tokenizer", "model"),
    "data stats": ("data", "stats", "data"),
    "train": ("train", "tldr/bt", "prepared=data", "base_model=./model"),
    "train-policy": ("train-policy", "--data", "data", "--tokenizer", "model"),
    "goal-state": ("goal-state", *RM, "--data", "data"),
    "score": ("score", *RM, "--input", "rows.jsonl", "--output", "s.jsonl"),
    "generate": ("generate", *LM, "--prompts", "rows.jsonl", "--output", "g.jsonl"),
    "evaluate preference": ("evaluate", "preference", *RM, "--data", "data"),
    "evaluate generation": (
        "evaluate", "generation", *LM, "--prompts", "rows.jsonl", "--methods", "methods.yaml",
        "--judge", "reward",
    ),
    "distil": ("distil", "pairs/distil", "policy=./model", "teacher=./reward",
               "prompts=rows.jsonl", "loss.weight=1"),
    "evaluate guide": ("evaluate", "guide", *RM, "--records", "records"),
    "inspect": ("inspect", *LM, *RM, "--prompt", "p"),
    "serve": ("serve", *LM, *RM),
    "demo": ("demo",),
}


def test_every_command_says_something_before_it_imports_what_takes_seconds(folder):
    for name, (status, said, error) in zip(
        STARTS, run_without_heavy(folder, STARTS.values()), strict=True
    ):
        assert status == 77, (name, status, said, error)
        assert said.rstrip().endswith("…"), (name, said)
        assert len(said.splitlines()) == 1


MISTAKES = [
    (("train", "tldr/bt", "prepared=nope"), "nope"),
    (("train", "tldr/bt", "prepared=data", "base_model=./nope"), "./nope"),
    (("train", "tldr/bt", "prepared=data", "--out", "data"), "not empty"),
    (("train-policy", "--data", "nope", "--tokenizer", "model"), "nope"),
    (("goal-state", "--reward-model", "./nope", "--data", "data"), "nope"),
    (("goal-state", *RM, "--data", "nope"), "nope"),
    (("goal-state", *RM, "--import-npy", "nope.npy"), "nope.npy"),
    (("score", "--reward-model", "model/nope", "--input", "rows.jsonl", "--output", "s.jsonl"),
     "model/nope"),
    (("score", *RM, "--input", "nope.jsonl", "--output", "s.jsonl"), "nope.jsonl"),
    (("score", *RM, "--input", "rows.jsonl", "--output", "s.csv"), ".parquet"),
    (("score", *RM, "--input", "qa.jsonl", "--output", "s.jsonl"), "'prompt' and 'completion'"),
    (("score", *RM, "--input", "rows.jsonl", "--output", "s.jsonl", "--goal", "goal.npy"),
     "--import-npy goal.npy"),
    (("score", *RM, "--input", "rows.jsonl", "--output", "s.jsonl", "--goal", "nope"), "nope"),
    (("score", *RM, "--input", "rows.jsonl", "--output", "s.jsonl", "--goal", "none",
      "--goal-name", "correct"), "--goal-name correct"),
    (("inspect", *LM, *RM, "--prompt", "p", "--goal", "goal.npy"), "--import-npy goal.npy"),
    (("generate", *LM, *RM, "--method", "goal_filter", "--prompts", "rows.jsonl", "--output", "g",
      "--goal", "goal.npy"), "--import-npy goal.npy"),
    (("generate", "--model", "a/b/c", "--prompts", "rows.jsonl", "--output", "g"), "a/b/c"),
    (("generate", *LM, "--prompts", "nope.jsonl", "--output", "g"), "nope.jsonl"),
    (("generate", *LM, "--output", "g"), "--prompts"),
    (("generate", *LM, "--method", "farm", "--prompts", "rows.jsonl", "--output", "g"), "'farma'"),
    (("evaluate", "generation", *LM, "--prompts", "rows.jsonl", "--methods", "nope.yaml",
      "--judge", "reward"), "nope.yaml"),
    (("evaluate", "generation", *LM, "--prompts", "rows.jsonl", "--methods", "none,farm=reward",
      "--judge", "reward"), "'farma'"),
    (("evaluate", "generation", *LM, "--prompts", "rows.jsonl", "--methods", "methods.yaml",
      "--judge", "nope"), "nope"),
    (("evaluate", "preference", *RM, "--data", "nope"), "nope"),
    (("evaluate", "preference", *RM, "--input", "nope.jsonl"), "nope.jsonl"),
    (("evaluate", "preference", *RM, "--input", "rows.jsonl", "--source", "pears"), "pairs"),
    (("distil", "pairs/distil", "policy=./nope", "teacher=./reward", "prompts=rows.jsonl"),
     "./nope"),
    (("distil", "pairs/distil", "policy=./model", "teacher=./reward", "prompts=nope.jsonl"),
     "nope.jsonl"),
    (("distil", "pairs/distil", "policy=./model", "teacher=./reward", "records=nope",
      "prompts=null"), "nope"),
    (("evaluate", "guide", *RM, "--records", "nope"), "nope"),
    (("evaluate", "guide", *RM, "--records", "records", "--test-fraction", "2"), "between 0 and 1"),
    (("evaluate", "frontier", "nope"), "nope"),
    (("evaluate", "frontier", "nope", "--at", "kl"), "kl=1"),
    (("evaluate", "frontier", "nope", "--out", "data"), "not empty"),
    (("evaluate", "correctness", "--scores", "nope"), "nope"),
    (("evaluate", "answers", "--input", "nope"), "nope"),
    (("inspect", "--model", "./nope", *RM, "--prompt", "p"), "./nope"),
    (("inspect", *LM, *RM, "--prompt", "p", "--filter", "nope"), "similarity"),
    (("inspect", *LM, *RM, "--prompt", "p", "--dtype", "nope"), "bfloat16"),
    (("serve", "--model", "./nope"), "./nope"),
    (("calibrate", "--scores", "nope.jsonl", "--output", "c.json"), "nope.jsonl"),
    (("report", "nope"), "nope"),
    (("data", "stats", "nope"), "nope"),
]


def test_mistyped_paths_and_settings_are_refused_before_heavy_imports(folder):
    lines = [line for line, _ in MISTAKES]
    for (line, word), (status, said, _) in zip(
        MISTAKES, run_without_heavy(folder, lines), strict=True
    ):
        assert status == 2, (line, status, said)
        message = said.splitlines()[-1]
        assert message.startswith("error: ")
        assert word in message, (line, message)


def test_names_that_may_be_on_the_hub_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    starting.check_model("gpt2", "owner/name", None, tmp_path / "out")
    for local in ("./gpt2", "out/name", "/no/where", "a/b/c", "~/x"):
        with pytest.raises(CheckpointError, match="there is none"):
            starting.check_model(local)


def test_outputs_in_read_only_places_are_refused_by_name(tmp_path, monkeypatch):
    starting.check_writable(tmp_path / "a" / "b" / "c.jsonl", None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file"):
        starting.check_writable(tmp_path / "file" / "c.jsonl")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(OutputError, match="read-only"):
        starting.check_writable(tmp_path / "a" / "c.jsonl")


def test_models_that_cannot_be_read_are_refused_by_name(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("")
    starting.check_model(folder)
    starting.check_reward_model(folder, "http://127.0.0.1:1")
    for locked in (folder, folder / "model.safetensors"):
        monkeypatch.setattr(os, "access", lambda place, mode, locked=locked: place != locked)
        for check in (starting.check_model, starting.check_reward_model):
            with pytest.raises(CheckpointError, match=f"no permission to read {locked};"):
                check(folder)


def test_counts_have_their_grammar():
    found = [starting.counted(number, "row") for number in (0, 1, 2, 1204)]
    assert found == ["0 rows", "1 row", "2 rows", "1,204 rows"]


@pytest.mark.parametrize(("content", "expected"), [
    ("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("1 0\n", None),
])
def test_a_containers_share_of_the_machine(tmp_path, content, expected):
    (tmp_path / "cpu.max").write_text(content)
    assert processors.cpu_quota(tmp_path / "cpu.max") == expected
    assert processors.cpu_quota(tmp_path / "absent") is None


def test_threads_that_wait_sleep(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    monkeypatch.setattr(processors, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(processors, "cores", lambda: 8)
    monkeypatch.setattr(starting, "cores", lambda: 8)
    starting.prepare_torch()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "ERROR"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    starting.prepare_torch()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_readable_at_any_width(option, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["generate"], ["serve"], ["evaluate"], ["evaluate", "generation"],
                    ["data"], ["data", "prepare"], ["score"]):
        result = CliRunner().invoke(app, [*command, option])
        assert result.exit_code == 0, result.output
        assert max(len(line) for line in result.output.splitlines()) <= 80
        assert not any(sign in result.output for sign in "╭│")
        assert "<bool>" not in result.output
        assert "[default: no-" not in result.output
        assert "<list" not in result.output
    generate = CliRunner().invoke(app, ["generate", "-h"]).output
    assert "--tokens / --no-tokens" in CliRunner().invoke(app, ["score", "-h"]).output
    for name in ("--weight-schedule", "--max-new-tokens", "speculative_rejection"):
        assert name in generate


def test_commands_stand_in_the_order_of_work():
    lines = CliRunner().invoke(app, ["-h"]).output.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ") and line.split()]
    places = [names.index(name) for name in ("demo", "data", "train", "score", "generate", "push")]
    assert places == sorted(places)


def test_version():
    from rewardsteer import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"rewardsteer {__version__}\n"


def failing(error):
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)

    @app.command("fail")
    def fail(resume: bool = False) -> None:
        raise error

    @app.command("other")
    def other() -> None:
        raise error

    return lambda name="fail": CliRunner().invoke(app, [name])


def test_a_full_or_read_only_disk_is_a_sentence():
    full = failing(OSError(errno.ENOSPC, "No space left on device", "x.jsonl"))()
    assert (full.exit_code, full.stderr) == (
        2, "error: x.jsonl cannot be written: No space left on device; free disk space.\n"
    )
    read_only = failing(OSError(errno.EROFS, "Read-only file system", "x.jsonl"))()
    assert "make the folder writable" in read_only.stderr
    assert "room" not in read_only.stderr
    secret = failing(PermissionError(errno.EACCES, "Permission denied", "x.jsonl"))()
    assert (secret.exit_code, secret.stderr) == (
        2, "error: x.jsonl cannot be read or written: Permission denied; change its permissions, "
        "or choose another.\n"
    )
    bug = failing(OSError(errno.EIO, "broken"))()
    assert isinstance(bug.exception, OSError)


def test_full_stops_are_not_doubled():
    said = failing(OutputError("It cannot be written: The disk failed..")).__call__().stderr
    assert said == "error: It cannot be written: The disk failed.\n"
    assert failing(OutputError("Wait... and see ../up.")).__call__().stderr == (
        "error: Wait... and see ../up.\n"
    )


def test_an_interruption_says_how_to_go_on():
    stop = failing(KeyboardInterrupt())
    assert (stop().exit_code, stop().stderr) == (
        130, "interrupted; the same command with --resume goes on\n"
    )
    assert stop("other").stderr == "interrupted\n"


def test_the_shell_completes_values():
    from rewardsteer.cli import completion

    assert completion.complete_method("spec") == ["speculative_rejection"]
    assert completion.complete_recipe("tldr/f") == ["tldr/farma"]
    assert "tldr" in completion.complete_source("")


def test_the_demos_imports_warn_nobody(tmp_path):
    code = (
        "from rewardsteer import outputs\nfrom rewardsteer.cli.main import app\n"
        "def stop(*given, **options):\n    raise SystemExit(0)\n"
        "outputs.claim_folder = stop  # what the demo does first, its imports done\n"
        f"app(['demo', '--out', {str(tmp_path / 'demo')!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Demo in ")
