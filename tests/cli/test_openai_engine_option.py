"""``rewardsteer generate --engine openai``."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from tests.cli.test_generate_command import save_reward_model
from tests.decoding.completions_server import TOKENIZER, CompletionsServer
from tests.fakes import save_tiny


@pytest.fixture
def server():
    with CompletionsServer() as started:
        yield started


def run(server, output, *options):
    return CliRunner().invoke(app, [
        "generate", "--engine", "openai", "--base-url", server.url, "--prompt", "a b",
        "--prompt", "c", "--output", str(output), "--max-new-tokens", "12", *options,
    ])


def rows(output):
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_whole_responses_and_a_vote(server, tmp_path):
    output = tmp_path / "answers.jsonl"
    done = run(server, output, "--method", "majority_vote", "--n", "3")
    assert done.exit_code == 0, done.output
    assert [one["method"] for one in rows(output)] == ["majority_vote"] * 2
    assert {body["messages"][0]["content"] for body in server.asked} == {"a b", "c"}
    settings = json.loads((tmp_path / "answers.jsonl.settings.json").read_text())
    assert settings["engine"] == "openai"
    assert settings["base_url"] == server.url
    again = run(server, output, "--method", "majority_vote", "--n", "3", "--resume")
    assert "all 2 prompts are answered" in again.output


def test_a_tokenizer_gives_token_ids(server, tmp_path):
    TOKENIZER.save_pretrained(tmp_path / "tokenizer")
    output = tmp_path / "answers.jsonl"
    done = run(server, output, "--tokenizer", str(tmp_path / "tokenizer"), "--model", "m")
    assert done.exit_code == 0, done.output
    assert all(one["token_ids"] for one in rows(output))
    assert server.asked[1]["prompt"] == TOKENIZER.encode("a b")


@pytest.mark.parametrize(("options", "told"), [
    (["--model", "other"], "does not serve the model"),
    (["--method", "cards", "--set", "reward_target=1"], "needs a reward model"),
    (["--engine", "transformers"], "are for --engine openai"),
    (["--engine", "vlm"], "are for --engine openai"),
])
def test_what_cannot_work_is_one_sentence(server, tmp_path, options, told):
    output = tmp_path / "answers.jsonl"
    done = run(server, output, *options)
    assert done.exit_code != 0
    assert told in str(done.exception) + done.output
    assert not output.exists()


def test_an_address_is_needed(tmp_path):
    command = ["generate", "--prompt", "a", "--output", str(tmp_path / "a")]
    for options, told in ((["--engine", "openai"], "needs --base-url"), ([], "Expected --model")):
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code != 0
        assert told in str(done.exception) + done.output


@pytest.mark.parametrize(("threshold", "writes"), [("-1e9", {"small"}), ("1e9", {"m", "small"})])
def test_a_second_policy_is_another_name(tmp_path, threshold, writes):
    base = save_tiny(tmp_path / "base")
    TOKENIZER.save_pretrained(base)
    save_reward_model(base, tmp_path / "reward", "scalar")
    options = ["--tokenizer", str(base), "--model", "m", "--reward-model",
               str(tmp_path / "reward"), "--set", f"accept_reward={threshold}"]
    output = tmp_path / "answers.jsonl"
    with CompletionsServer(models=("m", "small")) as server:
        done = run(server, output, "--method", "rsd", "--draft-model", "small", *options)
        assert done.exit_code == 0, done.output
        assert all(one["token_ids"] and one["cost"]["draft_tokens"] for one in rows(output))
        drawn = {body["model"] for body in server.asked if body["max_tokens"] > 1}
        assert drawn == writes
        begun = len(server.asked)
        done = run(server, tmp_path / "b.jsonl", "--method", "gsi", "--draft-model", "small",
                   *options)
        assert done.exit_code == 2
        assert "gives log-probabilities of given tokens, which openai does not do" in " ".join(
            done.output.split()
        )
        assert len(server.asked) == begun
