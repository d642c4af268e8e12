"""Bad input as a new user meets it: one sentence, status 2, nothing half-written."""

import json
import os
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rewardsteer.cli.decoding_options import SETTINGS
from rewardsteer.cli.main import app
from rewardsteer.errors import OutputError
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.outputs import check_folder
from tests.fakes import save_tiny


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    # What is checked only with the models at hand comes after lines that say what is done.
    _, found, message = " ".join(result.stderr.split()).rpartition("error: ")
    assert found
    for word in words:
        assert word in message
    assert "Traceback" not in message


@pytest.fixture
def base(tmp_path):
    return save_tiny(tmp_path / "base")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_unknown_names_suggest_the_nearest(base, tmp_path):
    refused(run("train", "tldr/farm"), "Did you mean 'tldr/farma'?")
    refused(run("train", "tldr/bt", "optimiser.learning_rat=1"), "Did you mean 'learning_rate'?")
    refused(run("train", "tldr/bt", "rounds"), "dotted.name=value")
    refused(run("train", "tldr/bt", "rounds=many"), "'rounds' is wrong", "'many'")
    refused(run("train", tmp_path / "none.yaml"), "none.yaml cannot be read")
    refused(run("data", "prepare", "tldrr", "--tokenizer", base), "Did you mean 'tldr'?")


def test_data_faults_name_file_and_line(base, tmp_path):
    out = tmp_path / "out"
    options = ("--tokenizer", base, "--out", out)
    refused(run("data", "prepare", "pairs", "--path", tmp_path / "no.jsonl", *options), "no.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n{oops\n')
    refused(
        run("data", "prepare", "pairs", "--path", tmp_path / "bad.jsonl", *options), "line 2"
    )
    same = write(tmp_path / "same.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "a"}])
    refused(run("data", "prepare", "pairs", "--path", same, *options), "chosen equals rejected")
    rows = [{"prompt": "p" * 50 + str(i), "chosen": "a", "rejected": "b"} for i in range(4)]
    long = write(tmp_path / "long.jsonl", rows)
    refused(
        run("data", "prepare", "pairs", "max_length=20", "--path", long, *options),
        "prompt longer than max_length", "raise max_length",
    )
    refused(run("data", "prepare", "hh", "--path", long), "--tokenizer")
    assert not out.exists() or not list(out.iterdir())


def test_prepared_folder_is_not_overwritten_unasked(base, tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(4)]
    arguments = (
        "data", "prepare", "pairs", "--path", write(tmp_path / "a.jsonl", rows),
        "--tokenizer", base, "--out", tmp_path / "out",
    )
    assert run(*arguments).exit_code == 0
    refused(run(*arguments), "not empty", "--overwrite")
    assert run(*arguments, "--overwrite").exit_code == 0
    stats = run("data", "stats", tmp_path / "out")
    assert stats.exit_code == 0
    assert "train chosen" in stats.stdout


def test_train_refuses_missing_models_and_taken_folders(base, tmp_path):
    data = tmp_path / "data"
    rows = [{"prompt": f"p{i}", "chosen": "a" * 20, "rejected": "b" * 20} for i in range(8)]
    path = write(tmp_path / "a.jsonl", rows)
    made = run("data", "prepare", "pairs", "--path", path, "--tokenizer", base, "--out", data)
    assert made.exit_code == 0
    common = (f"prepared={data}", "optimiser.precision=fp32", "log.save_steps=0")
    refused(
        run("train", "hh/bt", f"base_model={tmp_path / 'none'}", *common, "--out", tmp_path / "r"),
        "none",
    )
    missing = f"data.sources.0.path={tmp_path / 'gone.jsonl'}"
    refused(
        run("train", "hh/bt", f"base_model={base}", missing, "--out", tmp_path / "r"), "gone.jsonl"
    )
    assert not (tmp_path / "r").exists()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    refused(
        run("train", "hh/bt", f"base_model={base}", *common, "--out", taken),
        "not empty", "--resume",
    )
    refused(
        run("train", "hh/bt", f"base_model={base}", "prepared=nowhere", "--out", taken,
            "--overwrite"),
        "nowhere",
    )
    assert (taken / "mine").read_text() == "x"
    refused(
        run("train", "hh/farma", "head.kind=scalar", f"base_model={base}", *common),
        "best_next_token", "head.kind=vocabulary",
    )


def test_report_and_evaluate_name_what_is_missing(base, tmp_path):
    refused(run("report", tmp_path), "found none", "rewardsteer train", "'evaluate'")
    refused(run("report", tmp_path, "--out", tmp_path), "is a folder, expected a file name")
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "a"}])
    (tmp_path / "m.yaml").write_text("none: {metod: none}")
    refused(
        run("evaluate", "generation", "--model", base, "--prompts", prompts, "--methods",
            tmp_path / "m.yaml", "--judge", base), "Did you mean 'method'?",
    )
    refused(
        run("evaluate", "preference", "--reward-model", base, "--data", tmp_path),
        "has no manifest.json",
    )
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    refused(
        run("evaluate", "preference", "--reward-model", base, "--input", pairs, "--out",
            tmp_path / "out"), "without a card",
    )


def test_a_process_ends_with_status_two_and_no_traceback(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "rewardsteer", "train", "nothing/here"], capture_output=True,
        text=True, env={**os.environ, "NO_COLOR": "1"}, cwd=tmp_path,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: Unknown recipe 'nothing/here'")
    assert len(result.stderr.splitlines()) == 1


def every_command(command, path=()):
    """Each command with its path."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, one in command.commands.items():
        yield from every_command(one, (*path, name))


def test_numbers_of_things_have_a_least_value():
    """Methods' settings are checked with the method; all other whole numbers by their option."""
    found = []
    for path, command in every_command(get_command(app)):
        for option in command.params:
            kind = option.type_descriptor.annotation
            if kind is int and option.name not in SETTINGS and option.min is None:
                found.append((*path, option.name))
    assert not found
    refused_usage = run("generate", "--model", "m", "--output", "o", "--limit", "-1")
    assert refused_usage.exit_code == 2
    assert "greater than or equal to 1" in refused_usage.stderr


def test_a_folder_in_use_advises_resuming_where_the_command_can(tmp_path):
    """Advice names --resume if, and only if, the command has it."""
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OutputError) as stopped:
        check_folder(tmp_path)
    assert "--resume" not in str(stopped.value)
    with pytest.raises(OutputError, match=r"resume=True \(--resume\) to go on from it or over"):
        check_folder(tmp_path, resume=False)
    scores = write(tmp_path / "scores.jsonl", [{"question": "p", "completion": "a", "reward": 1}])
    result = run("evaluate", "correctness", "--scores", scores, "--out", tmp_path)
    refused(result, "not empty", "--overwrite")
    assert "--resume" not in result.stderr


def test_files_of_another_kind_are_told_by_their_ending(base, tmp_path):
    options = ("--model", base, "--method", "none")
    for ending in (".csv", ".parquet", ".jsonl.gz"):
        (tmp_path / f"p{ending}").write_bytes(b"\x1f\x8b")
        refused(
            run("generate", *options, "--prompts", tmp_path / f"p{ending}", "--output",
                tmp_path / "a.jsonl"),
            "of the kind", "expected JSON lines with 'prompt'",
        )
        refused(
            run("generate", *options, "--prompt", "hi", "--output", tmp_path / f"a{ending}"),
            "written as JSON lines; end its name in .jsonl",
        )
    assert not list(tmp_path.glob("a*"))


def test_the_folder_of_a_run_names_the_model_beneath_it(base, tmp_path):
    (tmp_path / "run").mkdir()
    base.rename(tmp_path / "run" / "model")
    place = tmp_path / "run"
    sentence = f"Expected a model folder at {place}, it holds no config.json; {place / 'model'}"
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    refused(run("evaluate", "preference", "--reward-model", place, "--input", pairs, "--out",
                tmp_path / "out"), sentence)
    refused(run("data", "prepare", "pairs", "--path", pairs, "--tokenizer", place, "--out",
                tmp_path / "data"), sentence)
    (tmp_path / "nothing").mkdir()
    refused(run("train", "pairs/bt", f"base_model={tmp_path / 'nothing'}",
                f"data.sources.0.path={pairs}", "--out", tmp_path / "out"),
            f"{tmp_path / 'nothing'}, it holds no config.json.")


def test_a_wrong_setting_of_a_method_names_its_label(base, tmp_path):
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "a"}])
    (tmp_path / "m.yaml").write_text("short: {method: none, max_new_tokens: lots}")
    refused(
        run("evaluate", "generation", "--model", base, "--prompts", prompts, "--methods",
            tmp_path / "m.yaml", "--judge", base), "The method 'short': The setting",
    )
    result = run("generate", "--model", base, "--reward-model", base, "--method", "farma", "--gate",
                 "entropy", "--prompt", "hi", "--output", tmp_path / "a.jsonl")
    refused(result, "needs either a gate_threshold or a gate_share, got neither.")


def test_data_of_another_template_shows_both(base, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [
        {"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(8)
    ])
    data = tmp_path / "data"
    made = run("data", "prepare", "pairs", "--path", pairs, "--tokenizer", base, "--out", data,
               "template.answer=A", "test_fraction=0.25")
    assert made.exit_code == 0, made.stderr
    refused(run("train", "pairs/bt", f"base_model={base}", f"prepared={data}", "--out",
                tmp_path / "out"), "answer: 'A' in the data, ", " here)")
    # No response is long enough for the prefixes of this recipe.
    refused(run("train", "pairs/pargs", f"base_model={base}", f"data.sources.0.path={pairs}",
                "--out", tmp_path / "out"), "no response is long enough", "data.prefix_start=N")


def test_rows_without_a_reward_are_not_counted_as_rewards(base, tmp_path):
    model = tmp_path / "rm"
    RewardModel.from_base(base, HeadConfig(kind="scalar")).save_pretrained(
        model, load_tokenizer(base), CheckpointCard(head=HeadConfig(kind="scalar"))
    )
    rows = write(tmp_path / "rows.jsonl", [
        {"prompt": "p", "completion": "a"}, {"prompt": "p" * 5000, "completion": "a"},
    ])
    place = tmp_path / "s.jsonl"
    result = run("score", "--reward-model", model, "--input", rows, "--output", place)
    assert result.exit_code == 0, result.stderr
    assert "1 reward written" in result.stderr
    assert "1 row without a reward" in result.stderr
