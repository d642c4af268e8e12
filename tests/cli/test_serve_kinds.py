"""``rewardsteer serve`` of reward models of any kind, without a policy."""

import time

import httpx
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.models.kinds import load_scorer
from tests.fakes import save_tiny
from tests.models.remote.reward_server import RewardServer, reward_of
from tests.serving.running import Process, wait_for


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    return [save_tiny(root / name, seed=seed) for name, seed in (("dpo", 1), ("ref", 2))]


@pytest.mark.slow
def test_an_implicit_reward_is_served(folders, warm):
    process = Process(
        "serve", "--reward-model", folders[0], "--kind", "implicit", "--kind-option",
        f"reference={folders[1]}", "--kind-option", "beta=0.5", "--device", "cpu", "--port", "0",
        warm=warm,
    )
    try:
        wait_for(process.address)
        reply = httpx.post(f"{process.address}/v1/rewards", json={
            "input": [{"prompt": "1+1=", "completion": "2"}], "per_token": True,
        }, timeout=60).json()
    finally:
        assert process.end() == 0
    assert not [line for line in process.lines if line.startswith("method: ")]
    scorer = load_scorer(
        folders[0], kind="implicit", reference=folders[1], beta=0.5, device="cpu"
    )
    [right] = scorer.score(["1+1="], ["2"])
    assert reply["model"] == "dpo"
    assert reply["data"][0]["reward"] == pytest.approx(right, abs=1e-4)
    assert reply["data"][0]["token_rewards"][-1] == pytest.approx(right, abs=1e-4)


@pytest.mark.slow
def test_an_address_is_served(warm):
    with RewardServer("vllm") as behind:
        process = Process("serve", "--reward-model", behind.url, "--port", "0", warm=warm)
        try:
            wait_for(process.address)
            reply = httpx.post(f"{process.address}/v1/rewards", json={
                "input": [{"prompt": "a", "completion": "b"}],
            }, timeout=60).json()
            behind.refuse = lambda number: 400
            refusal = httpx.post(f"{process.address}/v1/rewards", json={
                "input": [{"prompt": "a", "completion": "b"}],
            }, timeout=60)
        finally:
            assert process.end() == 0
    assert refusal.status_code == 400
    assert "the server reward refuses it: " in refusal.json()["error"]["message"]
    assert behind.url not in refusal.text
    from tests.fakes import character_tokenizer

    ids = character_tokenizer().encode("user: a\nassistant: b\n")
    assert reply["model"] == "reward"
    assert reply["data"][0]["reward"] == pytest.approx(reward_of(ids))


@pytest.mark.slow
def test_a_server_that_does_not_answer_keeps_nobody_from_ending(warm):
    with RewardServer("vllm") as behind:
        process = Process("serve", "--reward-model", behind.url, "--port", "0", "--limit",
                          "drain_seconds=1", "--limit", "seconds=2", warm=warm)
        wait_for(process.address)
        behind.seconds = 100
        reply = httpx.post(f"{process.address}/v1/rewards", json={
            "input": [{"prompt": "a", "completion": "b"}],
        }, timeout=60)
        assert reply.status_code == 504
        began = time.monotonic()
        assert process.end() == 0
        assert time.monotonic() - began < 40
        behind._server.force_exit = True


@pytest.mark.parametrize(("words", "message"), [
    (("--kind", "nothing"), "nothing"),
    (("--kind", "implicit", "--kind-option", "reference"), "name=value, got 'reference'"),
    (("--kind", "implicit", "--kind-option", "device=cpu"), "the command's own option"),
    (("--kind", "implicit"), "reference=FOLDER_OR_NAME"),
    (("--kind", "implicit", "--kind-option", "reference_free=true", "--model", "MODEL",
      "--method", "args"), "beam, best_of_n, cards"),
    (("--kind", "implicit", "--engine", "vllm", "--model", "MODEL"), "leave out --kind"),
])
def test_refusals(folders, words, message):
    words = [str(folders[1]) if word == "MODEL" else word for word in words]
    result = CliRunner().invoke(app, ["serve", "--reward-model", str(folders[0]), *words,
                                      "--port", "0"])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
