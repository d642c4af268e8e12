"""`rewardsteer evaluate preference --input` and `evaluate answers` as a user meets them."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny
from tests.models.remote.reward_server import RewardServer


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    base = save_tiny(root / "base")
    head = HeadConfig(kind="scalar")
    model = RewardModel.from_base(base, head)
    model.save_pretrained(root / "reward", load_tokenizer(base), CheckpointCard(head=head))
    return root / "reward"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reward_bench_layout(reward, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [
        {"prompt": f"q{i}", "chosen": "good", "rejected": "bad!", "subset": f"s{i % 2}", "id": i}
        for i in range(6)
    ])
    result = run(
        "evaluate", "preference", "--reward-model", reward, "--input", pairs, "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["all"]["count"] == 6
    assert metrics["subsets"].keys() == {"s0", "s1"}
    assert metrics["calibration"]["brier"] >= 0
    assert (tmp_path / "out" / "reliability.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(("command", "rows", "left"), [
    ("preference", [{"chosen": "good", "rejected": "bad!"}] * 6, {"q4", "q5"}),
    ("responses", [{"response": "good", "rating": i % 3} for i in range(10)], {"q8", "q9"}),
])
def test_rewards_are_kept_where_a_server_dies(tmp_path, command, rows, left):
    rows = write(tmp_path / "rows.jsonl", [
        {"prompt": f"q{i}", **row} for i, row in enumerate(rows)
    ])
    with RewardServer("vllm") as server:
        words = ["evaluate", command, "--reward-model", server.url, "--input", rows,
                 "--batch-size", "1", "--out"]
        whole = run(*words, tmp_path / "whole")
        assert whole.exit_code == 0, whole.output
        server.asked.clear()
        # After three rows that look for an activation and a part of eight responses.
        server.refuse = lambda number: 500 if number > 11 else None
        out = tmp_path / "out"
        refused(run(*words, out), "does not work")
        assert not (out / "metrics.json").exists()
        refused(run(*words, out), "--resume")
        server.refuse = lambda number: None
        server.asked.clear()
        result = run(*words, out, "--resume")
        assert result.exit_code == 0, result.output
        asked = [body["messages"][0]["content"] for _, body in server.asked]
    assert {one for one in asked if one.startswith("q")} == left
    found, right = (
        json.loads((folder / "metrics.json").read_text()) for folder in (out, tmp_path / "whole")
    )
    assert found == right


def test_one_of_data_and_input(reward, tmp_path):
    refused(run("evaluate", "preference", "--reward-model", reward), "--data", "--input")
    refused(
        run("evaluate", "preference", "--reward-model", reward, "--input", tmp_path / "no.jsonl"),
        "no.jsonl",
    )


def test_answers(tmp_path):
    solutions = write(tmp_path / "gsm8k.jsonl", [
        {"question": "2+2?", "generation": "So 4.", "predicted_answer": "4", "is_correct": True},
        {"question": "3+3?", "generation": "So 5.", "predicted_answer": "5", "is_correct": True},
    ])
    problems = write(tmp_path / "test.jsonl", [
        {"question": "3+3?", "answer": "#### 6"}, {"question": "2+2?", "answer": "#### 4"},
    ])
    refused(run("evaluate", "answers", "--input", solutions), "--problems")
    result = run(
        "evaluate", "answers", "--input", solutions, "--problems", f"gsm8k={problems}", "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["gsm8k"]
    assert (metrics["solutions"], metrics["predicted"]) == (2, 0.5)
    refused(run("evaluate", "answers", "--input", solutions, "--problems", "gsm8k"), "NAME=FILE")


def test_scoring_labels_solutions_by_their_problems(reward, tmp_path):
    folder = tmp_path / "in" / "gsm8k"
    folder.mkdir(parents=True)
    write(folder / "output-rs0.jsonl", [{"question": "2+2?", "generation": "So 4."}])
    problems = write(tmp_path / "test.jsonl", [{"question": "2+2?", "answer": "#### 4"}])
    result = run(
        "score", "--reward-model", reward, "--input", tmp_path / "in", "--problems",
        f"gsm8k={problems}", "--output", tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    [line] = (tmp_path / "out" / "all" / "gsm8k.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["is_correct"] is True
    result = run(
        "score", "--reward-model", reward, "--input", folder / "output-rs0.jsonl", "--output",
        tmp_path / "one.jsonl",
    )
    assert result.exit_code == 0, result.output
    [line] = (tmp_path / "one.jsonl").read_text().splitlines()
    assert json.loads(line)["generation"] == "So 4."
    assert json.loads(line)["token_rewards"] == row["token_rewards"]
    assert len(row["token_rewards"]) == row["token_count"] == len("So 4.") + 1
