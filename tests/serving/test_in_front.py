"""A server in front of another one: its strategies over that one's policy."""

import httpx
import pytest

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import Endpoint
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_scorer
from tests.fakes import character_tokenizer
from tests.serving.running import client, make_service, running, wait_until

PROMPTS = ["What is 7+8?", "a", "zz top"]


@pytest.fixture(scope="module")
def behind(folder):
    service = make_service(folder, head=None, method="none", places=16)
    with running(service) as (address, _):
        yield service, address


@pytest.fixture(scope="module")
def front(folder, behind):
    engine = OpenAIEngine(Endpoint(f"{behind[1]}/v1"), character_tokenizer(), places=8)
    limits = ServingConfig(places=8, seconds=60.0)
    served = ServedModels(
        engine, engine.tokenizer, make_scorer(folder, "scalar", "", Template()),
        DecodingConfig(method="best_of_n", n=4, top_k=0), limits, name="front",
    )
    service = Service(served, limits)
    with running(service) as (address, _):
        yield service, address


def ask(address, **body):
    reply = httpx.post(f"{address}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"]


def test_what_is_not_drawn_is_what_the_other_server_says(behind, front):
    body = {"prompt": PROMPTS, "temperature": 0, "max_tokens": 12, "return_token_ids": True}
    plain = ask(behind[1], **body)
    for found, right in zip(ask(front[1], method="none", **body), plain, strict=True):
        assert (found["text"], found["token_ids"]) == (right["text"], right["token_ids"])
        assert found["finish_reason"] == right["finish_reason"]
    whole = [one["text"] for one in ask(front[1], best_of=1, **body)]
    assert whole == [one["text"] for one in plain]


def test_strategies_choose_by_the_reward_model(front):
    service, address = front
    body = {"prompt": PROMPTS, "seed": 3, "max_tokens": 12}
    for method in ("best_of_n", "speculative_rejection"):
        settings = {"n": 4, "decision_tokens": 3} if method != "best_of_n" else {"n": 4}
        found = ask(address, method=method, method_settings=settings, **body)
        again = ask(address, method=method, method_settings=settings, **body)
        assert [one["text"] for one in found] == [one["text"] for one in again]
        for prompt, choice in zip(PROMPTS, found, strict=True):
            ids = service.served.engine.tokenizer.encode
            scorer = service.served.scorer
            [reward] = scorer.score_ids(
                [ids(prompt)], [scorer.close_response(ids(choice["text"]))]
            )
            assert choice["guidance"]["reward"] == pytest.approx(float(reward), abs=1e-4)
            assert choice["guidance"]["cost"]["lm_calls"] > choice["guidance"]["cost"]["new_tokens"]
    [streamed] = ask(address, prompt="a", method="majority_vote", method_settings={"n": 3}, seed=1)
    assert streamed["guidance"]["method"] == "majority_vote"


@pytest.mark.parametrize(("path", "body", "message"), [
    ("completions", {"method": "args"}, "acts on next-token scores|next-token scores"),
    ("completions", {"echo": True, "logprobs": 1, "max_tokens": 0}, "not known by the engine"),
])
def test_what_needs_the_models_here_is_refused(front, path, body, message):
    import re

    reply = httpx.post(f"{front[1]}/v1/{path}", json={"prompt": "a"} | body, timeout=60)
    assert reply.status_code == 400, reply.text
    assert re.search(message, reply.json()["error"]["message"])


def test_a_client_that_leaves_leaves_nothing_running_there(behind, front):
    service, address = front
    behind[0].served.engine.stop_ids = frozenset()
    with client(address) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", timeout=0.5, json={
            "prompt": "a", "method": "best_of_n", "best_of": 4, "max_tokens": 450,
        })
    wait_until(lambda: not behind[0].worker.busy and not behind[0].worker.waiting)
    wait_until(lambda: not service.worker.busy)
