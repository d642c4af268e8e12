"""A server in front of another one: its strategies over that one's policy."""

import json

import httpx
import pytest

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import Endpoint
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.generate import build_method, generate
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


def test_a_stop_string_is_left_in_the_text(behind):
    """And the choice says what stopped it, as vLLM's does."""
    body = {"prompt": PROMPTS, "seed": 1, "temperature": 2.0, "max_tokens": 12, "ignore_eos": True,
            "return_token_ids": True}
    whole = ask(behind[1], **body)
    stops = [one["text"][4] for one in whole]
    cut = ask(behind[1], stop=stops, **body)
    left = ask(behind[1], stop=stops, include_stop_str_in_output=True, **body)
    for full, short, one in zip(whole, cut, left, strict=True):
        at = min(full["text"].find(stop) for stop in stops if stop in full["text"])
        stop = full["text"][at]
        assert (full["stop_reason"], one["stop_reason"], short["stop_reason"]) == (None, stop, stop)
        assert (short["text"], one["text"]) == (full["text"][:at], full["text"][: at + 1])
        assert one["token_ids"] == full["token_ids"][: len(one["token_ids"])]
    with httpx.stream("POST", f"{behind[1]}/v1/completions", timeout=60, json=body | {
        "prompt": PROMPTS[0], "stop": stops, "include_stop_str_in_output": True, "stream": True,
    }) as reply:
        parts = [json.loads(line[6:]) for line in reply.iter_lines() if line[6:7] == "{"]
    pieces = [part["choices"][0] for part in parts]
    assert "".join(piece["text"] or "" for piece in pieces) == left[0]["text"]
    assert pieces[-1]["stop_reason"] == left[0]["stop_reason"]
    token = whole[0]["token_ids"][2]
    [by_token] = ask(behind[1], **body | {"prompt": PROMPTS[0], "stop_token_ids": [token]})
    assert by_token["stop_reason"] == token


@pytest.mark.parametrize("method", ["beam", "dvts"])
def test_steps_end_with_a_separator(front, method, monkeypatch):
    """Each step is a request to the other server that ends after the separator."""
    service, address = front
    steps, plain = [], OpenAIEngine.ask

    def spy(self, sample, wanted, separator, **options):
        steps.append((sample.text, separator))
        return plain(self, sample, wanted, separator, **options)

    monkeypatch.setattr(OpenAIEngine, "ask", spy)
    separator, encode = "b", service.served.engine.tokenizer.encode
    [found] = ask(address, prompt="a", seed=5, max_tokens=30, method=method, method_settings={
        "beam": 2, "branches": 2, "step_separator": separator, "step_tokens": 30, "max_steps": 4,
    }, logit_bias={str(encode(separator)[0]): 5.0})
    begun = [text for text, _ in steps if text]
    assert begun
    assert all(text.endswith(separator) for text in begun)
    assert {mark for _, mark in steps} == {separator}
    scorer = service.served.scorer
    if found["finish_reason"] == "stop":
        [reward] = scorer.score_ids(
            [encode("a")], [scorer.close_response(encode(found["text"]))]
        )
        assert found["guidance"]["reward"] == pytest.approx(float(reward), abs=1e-4)


def test_candidates_are_those_that_the_other_server_names(behind, front):
    body = {"prompt": PROMPTS, "temperature": 0, "max_tokens": 8, "method": "args", "top_k": 5,
            "weight": 3, "return_token_ids": True}
    found = ask(front[1], **body)
    served, policy = front[0].served, behind[0].served.engine
    config = DecodingConfig(
        method="args", mode="greedy", max_new_tokens=8, top_k=5, weight=3.0
    )
    right = generate(
        policy.policy, policy.tokenizer, PROMPTS, build_method(config, served.scorer), config,
        template=Template(kind="text"),
    )
    assert [one["token_ids"] for one in found] == [one.token_ids for one in right]


@pytest.mark.parametrize(("body", "message"), [
    ({"method": "farma"}, "next-token scores"),
    ({"echo": True, "logprobs": 1, "max_tokens": 0}, "not known by the engine"),
    ({"method": "args", "top_k": 21}, "does not name the 21 likeliest tokens"),
    ({"method": "args", "top_k": 5, "repetition_penalty": 1.5}, "set it to 1"),
    ({"method": "args", "top_k": 5, "gate": "top1", "gate_threshold": 0.5}, "leave out the gate"),
    ({"method": "speculative_rejection", "presence_penalty": 1.0}, "extends responses"),
])
def test_what_the_other_server_cannot_do_is_refused(front, body, message):
    reply = httpx.post(f"{front[1]}/v1/completions", json={"prompt": "a"} | body, timeout=60)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["error"]["message"]


def test_a_client_that_leaves_leaves_nothing_running_there(behind, front):
    service, address = front
    behind[0].served.engine.stop_ids = frozenset()
    with client(address) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", timeout=0.5, json={
            "prompt": "a", "method": "best_of_n", "best_of": 4, "max_tokens": 450,
        })
    wait_until(lambda: not behind[0].worker.busy and not behind[0].worker.waiting)
    wait_until(lambda: not service.worker.busy)
