"""Answers over HTTP are those of `generate`, whatever else runs; OpenAI's client takes them."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from rewardsteer.data.template import Template
from rewardsteer.records import Message
from tests.serving.running import client, make_service, offline, running

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who?"]


def post(address, path="/v1/completions", **body):
    return httpx.post(address + path, json=body, timeout=60)


def answer(address, **body):
    reply = post(address, **body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_equals_generate(service, address):
    found = answer(address, model="tiny", prompt=PROMPTS, seed=3, return_token_ids=True)
    for choice, right in zip(found["choices"], offline(service, PROMPTS, seed=3), strict=True):
        assert choice["token_ids"] == right.token_ids
        assert choice["text"] == right.completion
        assert choice["finish_reason"] == right.finish_reason
        cost = right.cost.model_dump() | {"seconds": 0}
        assert choice["guidance"]["cost"] | {"seconds": 0} == cost
        assert choice["guidance"]["seed"] == 3
    new = sum(len(choice["token_ids"]) for choice in found["choices"])
    assert found["usage"]["completion_tokens"] == new
    assert found["usage"]["prompt_tokens"] == sum(map(len, PROMPTS))


SETTINGS = [
    {}, {"weight": 0.0}, {"weight": -1.0, "top_k": 0}, {"temperature": 0.5}, {"temperature": 0},
    {"gate": "entropy", "gate_share": 0.5, "policy_power": 0.7},
    {"max_kl": 0.1}, {"target_kl": 0.3, "top_k": 3},
    {"weight_schedule": "cosine", "weight_end": 0.0}, {"method": "none"},
    {"method": "best_of_n", "best_of": 3}, {"max_tokens": 3}, {"max_tokens": 40},
]


def as_settings(body):
    renamed = dict(body)
    if renamed.get("temperature") == 0:
        renamed |= {"mode": "greedy", "temperature": 1.0}
    for ours, theirs in (("best_of", "n"), ("max_tokens", "max_new_tokens")):
        if ours in renamed:
            renamed[theirs] = renamed.pop(ours)
    return renamed


def test_concurrent_requests_of_all_kinds_equal_generate(service, address):
    """Weights, methods, temperatures and lengths differ from row to row of one batch."""
    draw = random.Random(0)
    asked = [
        (draw.choice(PROMPTS), SETTINGS[i % len(SETTINGS)] | {"seed": i}) for i in range(36)
    ]
    with client(address) as http, ThreadPoolExecutor(24) as pool:
        def ask(one):
            prompt, body = one
            reply = http.post("/v1/completions",
                              json={"prompt": prompt, "return_token_ids": True, **body})
            assert reply.status_code == 200, reply.text
            [choice] = reply.json()["choices"]
            return choice
        found = list(pool.map(ask, asked))
    for (prompt, body), choice in zip(asked, found, strict=True):
        [right] = offline(service, [prompt], **as_settings(body))
        assert choice["token_ids"] == right.token_ids, body
        assert choice["text"] == right.completion
        if body.get("method") == "best_of_n":
            assert choice["guidance"]["reward"] == pytest.approx(right.reward, abs=1e-4)


@pytest.mark.parametrize("method", ["args", "pargs", "best_of_n"])
def test_scalar_heads(folder, method):
    objective = "partial" if method == "pargs" else ""
    service = make_service(folder, head="scalar", method=method, objective=objective)
    with running(service) as (address, _):
        for top_k in (2, 5):
            extra = {"best_of": 4} if method == "best_of_n" else {}
            found = answer(address, prompt=PROMPTS[:3], seed=1, top_k=top_k, max_tokens=6,
                           return_token_ids=True, **extra)
            right = offline(service, PROMPTS[:3], seed=1, top_k=top_k, max_new_tokens=6,
                            **({"n": 4} if extra else {}))
            assert [one["token_ids"] for one in found["choices"]] == [
                one.token_ids for one in right
            ]


def test_several_responses_to_a_prompt(service, address):
    found = answer(address, prompt="Who?", n=3, seed=5)
    texts = [choice["text"] for choice in found["choices"]]
    assert texts[0] == offline(service, ["Who?"], seed=5)[0].completion
    assert len(set(texts)) > 1
    assert found["usage"]["prompt_tokens"] == 4


def test_a_seed_is_told_and_repeats(address):
    first = answer(address, prompt="Who?")
    seed = first["choices"][0]["guidance"]["seed"]
    assert answer(address, prompt="Who?", seed=seed)["choices"][0]["text"] == (
        first["choices"][0]["text"]
    )
    assert answer(address, prompt="Who?")["choices"][0]["guidance"]["seed"] != seed


def test_prompts_may_be_token_ids(service, address):
    ids = service.served.engine.tokenizer.encode("Who?")
    found = answer(address, prompt=ids, seed=2, return_token_ids=True)
    [right] = offline(service, ["Who?"], seed=2)
    assert found["choices"][0]["token_ids"] == right.token_ids


def test_stop_strings_cut_and_are_not_part(service, address):
    [whole] = offline(service, ["Who?"], seed=4, max_new_tokens=40)
    stop = whole.completion[6:8]
    for stream in (False, True):
        reply = post(address, prompt="Who?", seed=4, max_tokens=40, stop=["never seen", stop],
                     stream=stream)
        if stream:
            events = [json.loads(line[6:]) for line in reply.text.splitlines()
                      if line.startswith("data: {")]
            text = "".join(event["choices"][0]["text"] for event in events)
            reason = events[-1]["choices"][0]["finish_reason"]
        else:
            [choice] = reply.json()["choices"]
            text, reason = choice["text"], choice["finish_reason"]
        assert text == whole.completion[: whole.completion.index(stop)]
        assert reason == "stop"


# --- the official client -------------------------------------------------------------------------


@pytest.fixture
def official(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as found:
        yield found


def test_official_client_completions(service, official):
    reply = official.completions.create(
        model="tiny", prompt=PROMPTS, seed=3, max_tokens=9, extra_body={"weight": 0.5}
    )
    right = offline(service, PROMPTS, seed=3, max_new_tokens=9, weight=0.5)
    assert [choice.text for choice in reply.choices] == [one.completion for one in right]
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_official_client_chat(service, official):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    reply = official.chat.completions.create(
        model="tiny", messages=messages, seed=3, max_completion_tokens=9
    )
    prompt = [Message(**one) for one in messages]
    [right] = offline(service, [prompt], seed=3, max_new_tokens=9)
    assert reply.choices[0].message.content == right.completion
    assert reply.choices[0].message.role == "assistant"


def test_official_client_streams_completions(service, official):
    parts = list(official.completions.create(
        model="tiny", prompt=PROMPTS, seed=3, max_tokens=30, stream=True,
        stream_options={"include_usage": True},
    ))
    right = offline(service, PROMPTS, seed=3, max_new_tokens=30)
    texts = [""] * len(PROMPTS)
    for part in parts[:-1]:
        texts[part.choices[0].index] += part.choices[0].text
    assert texts == [one.completion for one in right]
    assert parts[-1].usage.completion_tokens == sum(len(one.token_ids) for one in right)
    assert len(parts) > 3 * len(PROMPTS)


def test_official_client_streams_chat(service, official):
    with official.chat.completions.stream(
        model="tiny", messages=[{"role": "user", "content": "Who?"}], seed=3, max_tokens=30
    ) as stream:
        final = stream.get_final_completion()
    [right] = offline(service, [[Message(role="user", content="Who?")]], seed=3, max_new_tokens=30)
    assert final.choices[0].message.content == right.completion
    assert final.choices[0].finish_reason == right.finish_reason


def test_official_client_lists_models(official, service):
    names = [model.id for model in official.models.list()]
    assert names[:2] == ["tiny", "tiny-reward"]
    assert names[2:] == [f"tiny@{method}" for method in service.served.methods.names]
    assert official.models.retrieve("tiny").owned_by == "rewardsteer"


def test_official_client_gets_its_own_errors(official):
    with pytest.raises(openai.BadRequestError, match="Did you mean 'farma'"):
        official.completions.create(model="tiny", prompt="a", extra_body={"method": "frama"})
    with pytest.raises(openai.NotFoundError) as caught:
        official.completions.create(model="other", prompt="a")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


# --- templates -----------------------------------------------------------------------------------


def test_what_a_template_puts_around_responses_is_left_out(folder):
    template = Template(prompt="Q: {prompt}\nA:", response=" {response}\n", append_eos=True)
    service = make_service(folder, template=template)
    with running(service) as (address, _):
        right = offline(service, PROMPTS, seed=3)
        whole = answer(address, prompt=PROMPTS, seed=3, apply_template=True)
        assert [choice["text"] for choice in whole["choices"]] == [one.completion for one in right]
        reply = post(address, prompt=PROMPTS, seed=3, stream=True, apply_template=True)
        texts = [""] * len(PROMPTS)
        for line in reply.text.splitlines():
            if line.startswith("data: {"):
                choice = json.loads(line[6:])["choices"][0]
                texts[choice["index"]] += choice["text"]
        assert texts == [one.completion for one in right]
