"""Every strategy through ``--engine openai`` on vLLM's own OpenAI server."""

import asyncio
import re
import urllib.request

import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.decoding.answer import run, scoring_beside  # noqa: E402
from rewardsteer.decoding.config import DecodingConfig  # noqa: E402
from rewardsteer.decoding.engines.endpoint import Endpoint  # noqa: E402
from rewardsteer.decoding.engines.openai import OpenAIEngine  # noqa: E402
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine  # noqa: E402
from rewardsteer.decoding.generate import build_method, generate, generate_by  # noqa: E402
from rewardsteer.decoding.methods import needs_goal  # noqa: E402
from rewardsteer.decoding.policy import load_policy  # noqa: E402
from rewardsteer.decoding.sample import Encoded  # noqa: E402
from rewardsteer.errors import ConfigError  # noqa: E402
from rewardsteer.goals.goal_state import GoalState, Provenance  # noqa: E402
from rewardsteer.models.checkpoint import load_tokenizer  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from tests.decoding.requested_likelihoods import PROMPT, check_found, of_all  # noqa: E402
from tests.serving.running import make_service  # noqa: E402
from tests.serving.running import running as running_service  # noqa: E402
from tests.vllm.models import expected, make_requests, save_models  # noqa: E402
from tests.vllm.test_server import Server  # noqa: E402

NEW = 20
RUNS = {
    "none": {"method": "none"},
    "best_of_n": {"method": "best_of_n", "n": 4},
    "majority_vote": {"method": "majority_vote", "n": 4},
    "speculative_rejection": {"method": "speculative_rejection", "n": 4, "decision_tokens": 4},
    "goal beam": {"method": "beam", "step_value": "goal", "beam": 2, "branches": 2,
                  "step_tokens": 6,
                  "max_steps": 4, "step_separator": " "},
    "goal_filter": {"method": "goal_filter", "n": 4, "drop_threshold": 0.0, "drop_start": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(root):
    with Server(
        root / "server.log", root / "policy", "--distributed-executor-backend", "uni",
        "--enable-prompt-tokens-details",
    ) as started:
        yield started.wait()


@pytest.fixture(scope="module")
def url(server):
    return f"{server.url}/v1"


@pytest.fixture(scope="module")
def scorer(root):
    return load_scorer(root / "args")


@pytest.fixture(scope="module")
def tokenizer(root):
    return load_tokenizer(root / "policy")


def make_method(config, scorer):
    goal = None
    if needs_goal(config):
        vectors = torch.randn(1, scorer.hidden_size, generator=torch.Generator().manual_seed(1))
        made = Provenance(kind="mean", model_fingerprint=scorer.fingerprint)
        goal = GoalState("good", vectors, made)
    return build_method(config, None if config.method == "none" else scorer, goal)


def answers(url, scorer, tokenizer, requests, **settings):
    config = DecodingConfig(**{"max_new_tokens": NEW, "seed": 2, "batch_size": 8} | settings)
    engine = OpenAIEngine.open(tokenizer.name_or_path, tokenizer, config, url=url)
    return list(generate_by(engine, requests, make_method(config, scorer), config))


def running(server):
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = [float(one) for one in re.findall(
        r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE
    )]
    assert len(found) >= 2
    return sum(found)


def test_greedy_answers_are_those_of_the_transformers_engine(url, root, scorer, tokenizer):
    requests = make_requests(8, 40)
    found = answers(url, scorer, tokenizer, requests, method="none", mode="greedy")
    known = expected(root, "args", requests, 0.0, NEW)
    assert {one.id: one.token_ids for one in found} == known


@pytest.mark.parametrize("name", RUNS)
def test_every_strategy_answers(url, scorer, tokenizer, name):
    requests = make_requests(6, 40)
    found = answers(url, scorer, tokenizer, requests, **RUNS[name])
    again = answers(url, scorer, tokenizer, requests, batch_size=2, **RUNS[name])
    for one, other in zip(found, again, strict=True):
        assert one.error is None, one.error
        assert one.token_ids == other.token_ids
        assert one.finish_reason == other.finish_reason
        assert 0 < one.cost.new_tokens == len(one.token_ids) <= one.cost.lm_calls
    if name == "best_of_n":
        rewards = scorer.score_ids(
            [request.prompt_ids for request in requests],
            [scorer.close_response(
                one.token_ids, {tokenizer.eos_token_id} if one.finish_reason == "stop" else ()
            ) for one in found],
        )
        assert [one.reward for one in found] == pytest.approx(rewards.tolist(), abs=1e-4)


@pytest.mark.parametrize("settings", [{"mode": "greedy"}, {"mode": "sample", "temperature": 0.8}])
def test_candidates_are_scored_as_in_the_transformers_engine(
    url, root, scorer, tokenizer, settings
):
    requests = make_requests(4, 40)
    config = DecodingConfig(
        method="args", weight=3.0, top_k=5, max_new_tokens=8, seed=2, **settings
    )
    found = answers(url, scorer, tokenizer, requests, **config.model_dump(exclude_unset=True))
    policy = load_policy(root / "policy", dtype=torch.float32)
    known = list(generate(policy, tokenizer, requests, build_method(config, scorer), config))
    assert [one.token_ids for one in found] == [one.token_ids for one in known]
    assert [one.cost.rm_calls for one in found] == [one.cost.rm_calls for one in known]


def test_gsi_asks_the_server_about_steps_that_another_server_drafts(url, root, scorer, tokenizer):
    requests = make_requests(4, 30)
    large, small = (load_policy(root / name) for name in ("policy", "base"))
    service = make_service(None, head=None, method="none", policy=small)
    seen = []
    with running_service(service) as (drafting, _):
        for accepted in (-1e9, 0.3, 1e9):
            config = DecodingConfig(
                method="gsi", mode="greedy", n=1, weight=10.0, accept_reward=accepted, seed=3,
                step_tokens=4, step_separator="", max_new_tokens=12, batch_size=4, top_k=0,
            )
            local = TransformersEngine(small, tokenizer)
            known = list(generate(
                large, tokenizer, requests, build_method(config, scorer, drafter=local), config
            ))
            engine, drafter = (
                OpenAIEngine(Endpoint(one), tokenizer) for one in (url, f"{drafting}/v1")
            )
            method = build_method(config, scorer, drafter=drafter)
            found = list(generate_by(engine, requests, method, config))
            for one, right in zip(found, known, strict=True):
                assert one.error is None, one.error
                assert (one.token_ids, one.finish_reason) == (right.token_ids, right.finish_reason)
                assert one.reward == pytest.approx(right.reward, abs=1e-4)
                assert one.cost.lm_calls == right.cost.lm_calls
                assert 0 < one.cost.draft_tokens < one.cost.lm_tokens
            seen.append([one.token_ids for one in found])
    # Accepted are all steps, some, and none.
    assert seen[0] != seen[1] != seen[2]


def test_what_the_server_cannot_do_is_refused_before_anything_runs(url, scorer, tokenizer):
    for settings, told in (
        ({"method": "cards", "reward_target": 1.0}, r"needs an engine that .* transformers"),
        ({"method": "args", "top_k": 30}, "does not name the 30 likeliest tokens.*max-logprobs"),
        ({"method": "args", "gate": "top1", "gate_threshold": 0.5}, "leave out the gate"),
    ):
        with pytest.raises(ConfigError, match=told):
            answers(url, scorer, tokenizer, ["a"], **settings)


@pytest.mark.parametrize("name", ["best_of_n", "speculative_rejection", "goal beam"])
def test_an_interrupted_strategy_leaves_nothing_running(server, url, scorer, tokenizer, name):
    config = DecodingConfig(**RUNS[name] | {
        "max_new_tokens": 200, "ignore_eos": True, "decision_tokens": 150, "step_tokens": 190,
        "step_separator": "",
    })
    method = make_method(config, scorer)

    async def interrupt():
        engine = OpenAIEngine(Endpoint(url), tokenizer)
        scoring = scoring_beside(engine, method.scorer, config.batch_size)
        prompt = Encoded("r", tokenizer.encode("a b"), given="a b")
        task = asyncio.get_running_loop().create_task(run(engine, scoring, prompt, method, config))
        for _ in range(3000):
            assert not task.done()
            if await asyncio.to_thread(running, server):
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(100):
            if not await asyncio.to_thread(running, server):
                break
            await asyncio.sleep(0.05)
        await engine.close()

    asyncio.run(interrupt())
    assert running(server) == 0


def test_likelihoods_are_those_of_the_policy(url, root, tokenizer):
    async def asked():
        engine = OpenAIEngine(Endpoint(url), tokenizer)
        assert "likelihoods" in engine.abilities
        told = engine.likelihoods(PROMPT)
        found = await of_all(told)
        await engine.close()
        return found, told.cost

    found, cost = asyncio.run(asked())
    # Each as a whole, whatever the prefix cache holds.
    check_found(found, cost, load_policy(root / "policy"), 1e-4)
