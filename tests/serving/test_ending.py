"""The command: a signal to end loses no accepted request, and what cannot be served is refused."""

import importlib.util
import json
import sys
import threading
import time

import httpx
import pytest
import torch
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.template import Template
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.serving.reach import check_reach, read_key
from tests.fakes import character_tokenizer, save_tiny
from tests.serving.running import KEY, Process, wait_for


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    base = save_tiny(root / "policy", seed=1)
    torch.manual_seed(0)
    card = CheckpointCard(
        head=HeadConfig(kind="vocabulary"), objective="max_constraint",
        template=Template().model_dump(),
    )
    model = RewardModel.from_base(base, HeadConfig(kind="vocabulary"))
    model.save_pretrained(root / "reward", character_tokenizer(), card)
    return root


@pytest.mark.slow
def test_sigterm_under_load_loses_no_accepted_request(root):
    """Whole answers for all that were accepted, 503 for the others; the key comes from the
    environment."""
    server = Process(
        "serve", "--model", root / "policy", "--reward-model", root / "reward", "--port", "0",
        "--limit", "places=8", REWARDSTEER_API_KEY=KEY,
    )
    wait_for(server.address)
    assert (
        "method: farma (the default for a vocabulary head trained with max_constraint; choose "
        "another with --method)"
    ) in server.lines
    header = {"Authorization": f"Bearer {KEY}"}
    assert httpx.post(f"{server.address}/v1/completions", json={"prompt": "a"}).status_code == 401
    first = httpx.post(f"{server.address}/v1/completions", json={"prompt": "a"}, headers=header)
    assert first.json()["model"] == "policy"
    assert first.json()["choices"][0]["guidance"]["method"] == "farma"
    outcomes, lock = [], threading.Lock()

    def load(number):
        """Asks until the server ends; notes every answer and every failure."""
        while True:
            body = {"prompt": "Who?", "max_tokens": 60, "stream": number % 2 == 0}
            try:
                reply = httpx.post(f"{server.address}/v1/completions", json=body, timeout=60,
                                   headers=header)
                text = reply.text
                whole = text.endswith("data: [DONE]\n\n") if body["stream"] else (
                    "usage" in reply.json()
                )
                outcome = reply.status_code if reply.status_code != 200 or whole else "cut short"
            except httpx.ConnectError:
                return
            except httpx.TransportError as error:
                # Torn before any answer began: nothing says that it was accepted.
                outcome = "cut short" if "incomplete" in str(error) else "torn"
            with lock:
                outcomes.append(outcome)
            if outcome == 503:
                time.sleep(0.02)

    threads = [threading.Thread(target=load, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(outcomes) < 40:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.end() == 0
    for thread in threads:
        thread.join(60)
    counts = {kind: outcomes.count(kind) for kind in set(outcomes)}
    assert counts.get(200, 0) >= 40
    assert counts.get(503, 0) > 0, counts
    assert "cut short" not in counts, counts
    # Every request that was accepted got its whole answer.
    assert server.accepted() == counts[200] + 1, counts
    assert KEY not in "\n".join(server.lines)


def refused(*arguments, **environment):
    result = CliRunner(env=environment).invoke(app, ["serve", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_what_cannot_be_served_is_refused(root, tmp_path):
    policy = ["--model", root / "policy"]
    assert "give it an API key" in refused(*policy, "--host", "0.0.0.0")
    assert "pass --model or --reward-model" in refused()
    assert "Did you mean 'places'?" in refused(*policy, "--limit", "place=3")
    assert "needs a goal state" in refused(
        *policy, "--reward-model", root / "reward", "--method", "goal_filter", "--port", 0
    )
    assert "needs a reward model" in refused(*policy, "--method", "farma", "--port", 0)
    assert "cannot be read" in refused(*policy, "--api-key-file", tmp_path / "absent")
    assert "cannot be used" in refused(*policy, "--host", "256.0.0.1", "--allow-anyone")
    assert "Unknown engine" in refused(*policy, "--engine", "other")


def test_keys_are_read_from_files_first(tmp_path, monkeypatch):
    monkeypatch.setenv("REWARDSTEER_API_KEY", "x" * 20)
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(tmp_path / "key") == KEY
    assert read_key(None) == "x" * 20
    (tmp_path / "key").write_text("short")
    with pytest.raises(ValueError, match="at least 16 printable"):
        read_key(tmp_path / "key")
    monkeypatch.delenv("REWARDSTEER_API_KEY")
    assert read_key(None) is None


def test_only_loopback_needs_no_key():
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_reach(host, None, allow_anyone=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(ValueError, match="API key"):
            check_reach(host, None, allow_anyone=False)
        check_reach(host, KEY, allow_anyone=False)
        check_reach(host, None, allow_anyone=True)


def test_vllm_is_refused_where_it_is_absent(root, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'rewardsteer[vllm]'" in refused(
        "--model", root / "policy", "--engine", "vllm"
    )


def test_vllm_is_started_with_the_reward_model(root, monkeypatch):
    started = []
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: object() if name == "vllm" else find(name, *more),
    )
    monkeypatch.setattr("os.execve", lambda *words: started.append(words) or sys.exit(0))
    monkeypatch.setattr("rewardsteer.decoding.engines.vllm_start.built_for", lambda: "cpu")
    result = CliRunner(env={"REWARDSTEER_API_KEY": KEY}).invoke(app, [
        "serve", "--model", str(root / "policy"), "--reward-model", str(root / "reward"),
        "--engine", "vllm", "--vllm-option", "max_model_len=256",
        "--vllm-option", "enforce_eager=true",
    ])
    assert result.exit_code == 0, result.output
    [(program, words, environment)] = started
    assert program == words[0] == sys.executable
    assert KEY not in words
    assert environment["VLLM_API_KEY"] == KEY
    # One word each, as a value may begin with a dash.
    overrides, written = (
        next(word for word in words if word.startswith(start)).removeprefix(start)
        for start in ("--hf-overrides=", "--chat-template=")
    )
    overrides = json.loads(overrides)
    assert overrides["rewardsteer"] == {"models": [str(root / "reward")], "weight": 1.0}
    # Conversations are written as the reward model was trained on them.
    assert "Human:" in written
    assert words[1:] == [
        "-m", "vllm.entrypoints.openai.api_server", "--model", str(root / "policy"),
        "--served-model-name", "policy", "--host", "127.0.0.1", "--port", "8000",
        "--no-enable-chunked-prefill", f"--hf-overrides={json.dumps(overrides)}",
        "--generation-config=vllm",
        '--override-generation-config={"temperature": 1.0, "top_k": 0, "top_p": 1.0, '
        '"min_p": 0.0, "repetition_penalty": 1.0}',
        f"--chat-template={written}", "--max-model-len=256", "--enforce-eager",
    ]
