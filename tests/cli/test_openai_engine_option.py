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
        assert all(body["max_tokens"] == 1 for body in server.asked[begun:])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tokenizer, and reward models that read its tokens."""
    root = tmp_path_factory.mktemp("models")
    base = save_tiny(root / "base")
    TOKENIZER.save_pretrained(base)
    for kind in ("scalar", "vocabulary"):
        save_reward_model(base, root / kind, kind)
    (root / "prompts.txt").write_text("a b\nc\n")
    return root


def compared(server, models, out, methods, *options):
    place = out.parent / "methods.yaml"
    place.write_text(methods.format(scalar=models / "scalar", vocabulary=models / "vocabulary"))
    return CliRunner().invoke(app, [
        "evaluate", "generation", "--engine", "openai", "--base-url", server.url, "--tokenizer",
        str(models / "base"), "--prompts", str(models / "prompts.txt"), "--methods", str(place),
        "--judge", str(models / "scalar"), "--out", str(out), *options,
    ])


METHODS = """
none: {{method: none, max_new_tokens: 8}}
best: {{method: best_of_n, n: 3, max_new_tokens: 8, reward_model: {scalar}}}
"""


def test_methods_are_compared_over_an_address(server, models, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    out = tmp_path / "out"
    options = ("--key-env", "SOME_KEY", "--seeds", "0,1")
    done = compared(server, models, out, METHODS, *options)
    assert done.exit_code == 0, done.output
    assert set(server.keys) == {"Bearer sk-very-secret"}
    settings = json.loads((out / "run.json").read_text())
    assert (settings["engine"], settings["base_url"]) == ("openai", server.url)
    found = json.loads((out / "seeds.json").read_text())["methods"]
    assert found["best"]["lm_calls_per_token"] > found["none"]["lm_calls_per_token"] == 1
    drawn = [body for body in server.asked if body["max_tokens"] > 1]
    assert {body["temperature"] for body in drawn} == {1.0}
    # Two seeds, two prompts; the first of best's samples is that of none.
    assert len(drawn) == 2 * 2 * (1 + 3)
    assert len({body["seed"] for body in drawn}) == 2 * 2 * 3
    for place in out.rglob("*.*"):
        assert "sk-very-secret" not in place.read_text() + done.output
    again = compared(server, models, out, METHODS, *options, "--resume")
    assert again.exit_code == 0, again.output
    assert len([body for body in server.asked if body["max_tokens"] > 1]) == len(drawn)
    with CompletionsServer() as other:
        done = compared(other, models, out, METHODS, *options, "--resume")
    assert "begun with other settings of base_url" in " ".join(done.output.split())


@pytest.mark.parametrize(("methods", "options", "told"), [
    ("a: {{method: farma, reward_model: {vocabulary}}}", (), "lets methods act on next-token"),
    ("a: {{method: cards, reward_target: 1, reward_model: {scalar}}}", (), "policy is unsure"),
    (METHODS, ("--kl-prompts", "2"), "leave out kl_prompts (--kl-prompts)"),
    (METHODS, ("--engine", "vllm"), "--key-env are for --engine openai, got --engine vllm"),
])
def test_a_comparison_that_cannot_run_is_refused_before_models_load(
    server, models, tmp_path, monkeypatch, methods, options, told
):
    monkeypatch.setattr(
        "rewardsteer.models.kinds.load_scorer", lambda *_, **__: pytest.fail("it was loaded")
    )
    done = compared(server, models, tmp_path / "out", methods, *options)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_budget_of_tokens_needs_sizes(server, models, tmp_path):
    options = ("--budget", "tokens", "--budget-per-prompt", "100")
    done = compared(server, models, tmp_path / "out", METHODS, *options)
    assert "sizes of the policies of 'best' are not known" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()
