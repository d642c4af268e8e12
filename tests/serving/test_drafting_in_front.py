"""A second policy that drafts, as another name at the address of the policy: two servers of this
package behind one that passes requests on by the model's name."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rewardsteer import RewardModel, Steerer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import Endpoint
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate, generate_by
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.requested_likelihoods import PROMPT, check_found, of_all
from tests.decoding.test_generate import make_policy, make_scorer
from tests.fakes import character_tokenizer
from tests.serving.running import make_service, running

PROMPTS = ["What is 7+8?", "a", "zz top"]
TOKENIZER = character_tokenizer()
# Some steps of either policy.
SETTINGS = {"method": "rsd", "step_tokens": 4, "step_separator": "", "max_new_tokens": 15,
            "top_k": 0}


@contextmanager
def passing_on(addresses):
    """One address for several servers, by the model's name."""

    async def models(_):
        return JSONResponse({"object": "list", "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in addresses
        ]})

    async def completions(request):
        body = await request.json()
        place = addresses[body["model"]]
        async with httpx.AsyncClient(timeout=60) as http:
            reply = await http.post(f"{place}/v1/completions", json=body | {"model": "tiny"})
        return Response(reply.content, reply.status_code, media_type="application/json")

    app = Starlette(routes=[
        Route("/v1/models", models), Route("/v1/completions", completions, methods=["POST"]),
    ])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def policies():
    return make_policy("llama", eos_bias=1.0)[0], make_policy("gpt2")[0]


@pytest.fixture(scope="module")
def address(folder, policies):
    services = [
        make_service(folder, head=None, method="none", policy=one, places=16) for one in policies
    ]
    with (
        running(services[0]) as (large, _), running(services[1]) as (small, _),
        passing_on({"large": large, "small": small}) as url,
    ):
        yield url


@pytest.fixture(scope="module")
def scorer(folder):
    return make_scorer(folder, "scalar")


def greedy(policies, scorer, threshold):
    """As the transformers engine answers."""
    config = DecodingConfig(**SETTINGS, mode="greedy", accept_reward=threshold)
    large, small = policies
    method = build_method(config, scorer, drafter=TransformersEngine(small, TOKENIZER))
    return list(generate(large, TOKENIZER, PROMPTS, method, config))


def middle(policies, scorer):
    """A threshold that turns down some steps."""
    rewards = sorted(one.reward for one in greedy(policies, scorer, -1e9))
    return rewards[1]


def engines(url, places=8):
    return [OpenAIEngine(Endpoint(url, name), TOKENIZER, places=places)
            for name in ("large", "small")]


def test_greedy_answers_are_those_of_the_transformers_engine(address, policies, scorer):
    known = {}
    for threshold in (-1e9, middle(policies, scorer), 1e9):
        known[threshold] = greedy(policies, scorer, threshold)
        config = DecodingConfig(**SETTINGS, mode="greedy", accept_reward=threshold)
        engine, drafter = engines(address)
        method = build_method(config, scorer, drafter=drafter)
        found = list(generate_by(engine, PROMPTS, method, config))
        for one, right in zip(found, known[threshold], strict=True):
            assert one.error is None
            assert one.token_ids == right.token_ids
            assert one.reward == pytest.approx(right.reward, abs=1e-5)
            assert one.finish_reason == right.finish_reason
            # What each draws is counted; what a server reads it says by itself.
            assert one.cost.lm_calls == right.cost.lm_calls
            assert 0 < one.cost.draft_tokens <= one.cost.lm_tokens
        # The connections of both are closed.
        assert drafter.endpoint._client.is_closed()
        assert engine.endpoint._client.is_closed()
    answers = [[one.token_ids for one in each] for each in known.values()]
    assert answers[0] != answers[1] != answers[2]


def test_drafts_are_weighed_by_likelihoods_of_the_server(address, policies, scorer):
    """gsi asks the policy's server about the drafted tokens."""
    large, small = policies
    settings = SETTINGS | {"method": "gsi", "mode": "greedy", "n": 1, "weight": 4.0}
    seen = []
    for threshold in (-1e9, middle(policies, scorer), 1e9):
        config = DecodingConfig(**settings, accept_reward=threshold)
        drafter = TransformersEngine(small, TOKENIZER)
        known = list(generate(
            large, TOKENIZER, PROMPTS, build_method(config, scorer, drafter=drafter), config
        ))
        engine, drafter = engines(address)
        method = build_method(config, scorer, drafter=drafter)
        found = list(generate_by(engine, PROMPTS, method, config))
        for one, right in zip(found, known, strict=True):
            assert one.error is None
            assert one.token_ids == right.token_ids
            assert one.reward == pytest.approx(right.reward, abs=1e-5)
            assert one.cost.lm_calls == right.cost.lm_calls
            # The policy's likelihoods of a draft are a forward pass besides.
            assert one.cost.lm_forwards > one.cost.lm_calls
            assert 0 < one.cost.draft_tokens < one.cost.lm_tokens
        seen.append([one.token_ids for one in found])
    assert seen[0] != seen[2]


def test_likelihoods_are_those_of_the_policy(address, policies):
    async def asked():
        engine, _ = engines(address)
        told = engine.likelihoods(PROMPT)
        found = await of_all(told)
        await engine.close()
        return found, told.cost

    found, cost = asyncio.run(asked())
    check_found(found, cost, policies[0], 1e-5)
    assert cost.seconds > 0


def test_python_and_a_server_in_front(address, policies, scorer):
    threshold = middle(policies, scorer)
    known = [one.completion for one in greedy(policies, scorer, threshold)]
    steerer = Steerer(
        "large", RewardModel(scorer), engine="openai", base_url=address, tokenizer=TOKENIZER,
        draft_model="small", accept_reward=threshold, mode="greedy", **SETTINGS,
    )
    assert [one.text for one in steerer.generate(PROMPTS)] == known
    engine, drafter = engines(address)
    limits = ServingConfig(places=8, seconds=60.0)
    served = ServedModels(
        engine, TOKENIZER, scorer, DecodingConfig(method="best_of_n", top_k=0), limits,
        name="front", drafter=drafter,
    )
    assert {"rsd", "gsi"} <= set(served.methods.names)
    with running(Service(served, limits)) as (front, _):
        reply = httpx.post(f"{front}/v1/completions", timeout=60, json={
            "prompt": PROMPTS, "model": "front@rsd", "temperature": 0, "max_tokens": 15,
            "apply_template": True, "method_settings": {
                "step_tokens": 4, "step_separator": "", "accept_reward": threshold,
            },
        })
        assert reply.status_code == 200, reply.text
        assert [one["text"] for one in reply.json()["choices"]] == known


def test_what_is_refused(address, scorer):
    settings = SETTINGS | {"accept_reward": 0.0}
    with pytest.raises(ConfigError, match="does not serve the model 'absent'"):
        OpenAIEngine(Endpoint(address, "absent"), TOKENIZER)
    config = DecodingConfig(**settings)
    engine, drafter = engines(address)
    # A server whose model reads other tokens tells by their number.
    drafter.length_of_text = engine.length_of_text + 1
    with pytest.raises(MismatchError, match="must have one vocabulary"):
        generate_by(engine, ["a"], build_method(config, scorer, drafter=drafter), config)
    alone = OpenAIEngine(Endpoint(address, "large"), None)
    with pytest.raises(ConfigError, match="without the policy's tokenizer"):
        generate_by(alone, ["a"], build_method(config, scorer, drafter=drafter), config)
    assert engine.length_of_text
