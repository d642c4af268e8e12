"""A server with a second policy that drafts, and with a reward model of its own for gates."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.errors import ConfigError
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy, make_scorer
from tests.fakes import character_tokenizer
from tests.serving.running import client, make_service, running, wait_until

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: "]
STEPS = {"step_tokens": 3, "step_separator": "", "accept_reward": 0.0}
SETTINGS = {"rsd": STEPS, "gsi": {"n": 2, **STEPS}}


def second_service(folder, *, scorer="scalar", method="args", scout=False):
    policy, tokenizer = make_policy("llama", eos_bias=1.0)
    small, _ = make_policy("gpt2")
    limits = ServingConfig(places=16, seconds=60.0)
    served = ServedModels(
        policy, tokenizer, make_scorer(folder, scorer), DecodingConfig(method=method, top_k=5),
        limits, name="tiny", drafter=small,
        scout=make_scorer(folder, "vocabulary") if scout else None,
    )
    return Service(served, limits)


@pytest.fixture(scope="module")
def served(folder):
    service = second_service(folder, scout=True)
    with running(service) as (address, _):
        yield service, address


def ask(address, **body):
    reply = httpx.post(f"{address}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"]


def offline(service, config, **models):
    served = service.served
    method = build_method(config, served.scorer, **models)
    return list(generate(
        served.engine.policy, served.engine.tokenizer, PROMPTS, method, config,
        template=served.template,
    ))


def same(choice, known):
    assert choice["text"] == known.completion
    cost = choice["guidance"]["cost"]
    assert dict(cost, seconds=0) == known.cost.model_dump() | {"seconds": 0}
    return cost


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_are_those_of_generate(served, name):
    service, address = served
    config = DecodingConfig(**{
        **service.served.defaults.model_dump(), **SETTINGS[name], "method": name,
        "max_new_tokens": 12, "seed": 5, "batch_size": 8, "top_k": 0,
    })
    small = service.served.drafter.policy
    drafter = TransformersEngine(small, service.served.engine.tokenizer, Bounds(places=8))
    known = offline(service, config, drafter=drafter)
    body = {"method": name, "method_settings": SETTINGS[name], "seed": 5, "max_tokens": 12,
            "top_k": 0, "apply_template": True}
    for choice, right in zip(ask(address, prompt=PROMPTS, **body), known, strict=True):
        assert same(choice, right)["draft_tokens"] > 0
    # Alone and beside others, by the model's name: the same answers.
    with ThreadPoolExecutor(6) as pool:
        again = list(pool.map(
            lambda number: ask(address, prompt=PROMPTS[:number % 3 + 1], model=f"tiny@{name}",
                               **{key: one for key, one in body.items() if key != "method"}),
            range(6),
        ))
    for choices in again:
        assert [one["text"] for one in choices] == [
            one.completion for one in known[: len(choices)]
        ]


def test_a_gate_asks_its_own_reward_model(served):
    service, address = served
    config = DecodingConfig(**{
        **service.served.defaults.model_dump(), "method": "args", "gate": "kl",
        "gate_threshold": 1e-4, "weight": 3.0, "max_new_tokens": 12, "seed": 5, "batch_size": 8,
    })
    known = offline(service, config, scout=service.served.methods._scout)
    body = {"prompt": PROMPTS, "seed": 5, "max_tokens": 12, "weight": 3.0, "apply_template": True}
    found = ask(address, gate="kl", gate_threshold=1e-4, **body)
    for choice, right in zip(found, known, strict=True):
        assert same(choice, right)["gate_tokens"] > 0
    for more in ({}, {"gate": "entropy", "gate_threshold": 0.1}):
        assert ask(address, **more, **body)[0]["guidance"]["cost"]["gate_tokens"] == 0


def test_what_is_listed_and_refused(served, folder):
    _, address = served
    listed = {one["id"] for one in httpx.get(f"{address}/v1/models").json()["data"]}
    assert {"tiny@rsd", "tiny@gsi"} <= listed
    with running(make_service(folder, head="scalar", method="args")) as (alone, _):
        listed = {one["id"] for one in httpx.get(f"{alone}/v1/models").json()["data"]}
        assert not {"tiny@rsd", "tiny@gsi"} & listed
        reply = httpx.post(f"{alone}/v1/completions", json={"prompt": "a", "method": "rsd"})
        assert reply.status_code == 400
        assert "(this server's option --draft-model)" in reply.json()["error"]["message"]
    reply = httpx.post(f"{address}/v1/completions", json={
        "prompt": "a", "method": "best_of_n", "method_settings": {"accept_reward": 1}
    })
    assert "accept_reward means nothing to the method 'best_of_n'" in reply.text


def test_a_default_method_without_its_second_policy_is_refused(folder):
    with pytest.raises(ConfigError, match="'rsd' needs a second policy"):
        make_service(folder, head="scalar", method="rsd")
    assert second_service(folder, method="rsd").served.methods.names[0] == "rsd"


@pytest.mark.parametrize("name", SETTINGS)
def test_who_leaves_frees_both_policies(folder, name):
    service = second_service(folder)
    # No end-of-text: only who leaves ends a row.
    for engine in (service.served.engine, service.served.drafter):
        engine.stop_ids = frozenset()
    with running(service) as (address, middleware), client(address) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", timeout=0.3, json={
                "prompt": "a", "method": name, "max_tokens": 400,
                "method_settings": SETTINGS[name] | {"step_tokens": 400},
            })
        assert service.worker.steps > 0
        wait_until(lambda: not (
            service.worker.busy or service.worker.waiting or service.worker.batches
        ))
        assert middleware.in_flight == 0
        assert service.served.drafter.steps > 0
        assert service.served.drafter.tokens < 800


def test_a_prompt_that_the_second_policy_cannot_read_is_refused(folder):
    policy, tokenizer = make_policy("llama", vocab_size=90)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    small, _ = make_policy("gpt2")
    limits = ServingConfig(places=8, seconds=60.0)
    service = Service(ServedModels(
        policy, tokenizer, make_scorer(folder, "scalar"), DecodingConfig(method="args", top_k=5),
        limits, name="tiny", drafter=small,
    ), limits)
    with running(service) as (address, _), client(address) as http:
        body = {"prompt": "a<|tool|>", "max_tokens": 4, "seed": 1}
        reply = http.post("/v1/completions", json=body | {"method": "rsd"})
        assert reply.status_code == 400
        error = reply.json()["error"]
        last = len(character_tokenizer())
        assert f"reads token ids from 0 to {last - 1}; the prompt has {last}" in error["message"]
        assert error["param"] == "prompt"
        assert http.post("/v1/completions", json=body | {"method": "none"}).status_code == 200


@pytest.mark.parametrize("name", SETTINGS)
def test_log_probabilities_of_a_second_policys_tokens_are_refused(served, name):
    _, address = served
    body = {"method": name, "method_settings": SETTINGS[name], "max_tokens": 4}
    for route, more in (
        ("completions", {"prompt": "a", "logprobs": 0}),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": True}),
    ):
        reply = httpx.post(f"{address}/v1/{route}", json=body | more, timeout=60)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert f"'{name}' takes tokens of a second policy" in error["message"]
        assert error["param"] == "logprobs"
