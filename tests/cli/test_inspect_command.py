"""`rewardsteer inspect` as a user meets it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from rewardsteer.cli.group import Group
from rewardsteer.cli.inspect import inspect_command
from rewardsteer.evaluation.inspection_records import Inspection
from tests.cli.test_generate_command import save_reward_model
from tests.fakes import save_tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspect")
    save_reward_model(save_tiny(root / "policy", seed=1), root / "farma", "vocabulary")
    return root


def inspect(root, output, *more):
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("inspect")(inspect_command)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, [
        "inspect", "--model", str(root / "policy"), "--reward-model", str(root / "farma"),
        "--method", "farma", "--output", str(output), "--max-new-tokens", "4", *map(str, more),
    ])


def read(path):
    return [Inspection.model_validate_json(line) for line in path.read_text().splitlines()]


def test_a_prompt_with_and_without_its_completion(root, tmp_path):
    result = inspect(root, tmp_path / "a.jsonl", "--prompt", "7+8=", "--completion", "15",
                     "--filter", "reward", "--threshold", 1e9, "--start", 1)
    assert result.exit_code == 0, result.output
    [one] = read(tmp_path / "a.jsonl")
    assert (one.prompt, one.completion, one.method) == ("7+8=", "15", "farma")
    assert [token.text for token in one.tokens] == ["1", "5", "<eos>"]
    assert one.stop.index == 1
    assert one.settings["reward_fingerprint"]
    assert inspect(root, tmp_path / "b.jsonl", "--prompt", "7+8=").exit_code == 0
    assert 1 <= len(read(tmp_path / "b.jsonl")[0].tokens) <= 4


def test_what_other_commands_wrote(root, tmp_path):
    generation = {"id": "g7", "prompt": "Who?", "completion": "x", "token_ids": [5, 6]}
    rows = [{"generation": generation, "metrics": {}}, {"prompt": "a", "completion": "b",
            "is_correct": True}, {"prompt": "c", "completion": "d"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = inspect(root, tmp_path / "out.jsonl", "--input", tmp_path / "in.jsonl", "--limit", 2)
    assert result.exit_code == 0, result.output
    first, second = read(tmp_path / "out.jsonl")
    assert (first.id, [token.token_id for token in first.tokens]) == ("g7", [5, 6])
    assert (second.id, second.is_correct) == ("2", True)


@pytest.mark.parametrize(("more", "message"), [
    ((), "either --prompt or --input"),
    (("--prompt", "a", "--filter", "colour"), "expected reward or similarity"),
    (("--prompt", "a", "--filter", "similarity"), "needs a goal state"),
    (("--prompt", "a", "--weight", "nan"), "weight"),
    (("--input", "empty.jsonl"), "holds no rows"),
    (("--input", "bad.jsonl"), "line 1: expected a field 'prompt'"),
])
def test_bad_input_is_one_sentence_and_no_file(root, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"text": 1}\n')
    result = inspect(root, tmp_path / "out.jsonl", *more)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.jsonl").exists()


def test_an_output_is_not_replaced_unasked(root, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    result = inspect(root, tmp_path / "out.jsonl", "--prompt", "a")
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (tmp_path / "out.jsonl").read_text() == "mine"
