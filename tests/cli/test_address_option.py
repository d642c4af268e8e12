"""Commands that score take the address of a reward model."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from tests.fakes import character_tokenizer, save_tiny
from tests.models.remote.reward_server import RewardServer, reward_of

ROWS = [("a", "b"), ("1+1=", "2"), ("Who?", "Me, I think")]


def reward(prompt, completion):
    text = f"user: {prompt}\nassistant: {completion}\n"
    return reward_of(character_tokenizer().encode(text))


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_score(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(
        json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in ROWS
    ))
    with RewardServer("vllm") as server:
        run("score", "--reward-model", server.url, "--input", rows, "--output",
            tmp_path / "out.jsonl")
    found = [
        json.loads(line)["reward"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert found == pytest.approx([reward(p, c) for p, c in ROWS], abs=1e-6)


def test_generate(tmp_path):
    """A method that judges texts takes the address; one that reads tokens refuses it."""
    policy = save_tiny(tmp_path / "policy", seed=1)
    words = ["generate", "--model", policy, "--prompt", "a", "--max-new-tokens", 4, "--output",
             tmp_path / "out.jsonl"]
    with RewardServer("vllm") as server:
        run(*words, "--reward-model", server.url, "--n", 3)
    [found] = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert found["method"] == "best_of_n"
    assert found["reward"] == pytest.approx(reward("a", found["completion"]), abs=1e-6)


def test_evaluate_preference(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(
        json.dumps({"prompt": p, "chosen": c, "rejected": c + "!"}) + "\n" for p, c in ROWS
    ))
    with RewardServer("vllm") as server:
        run("evaluate", "preference", "--reward-model", server.url, "--input", pairs, "--out",
            tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = sum(reward(p, c) > reward(p, c + "!") for p, c in ROWS) / len(ROWS)
    assert figures["all"]["accuracy"] == pytest.approx(expected)
    assert figures["provenance"]["kind"] == "remote"
