"""OpenAI's fields through the official client: what they change, and what answers tell."""

import json

import httpx
import openai
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.requests import Request
from rewardsteer.records import Message
from rewardsteer.serving import streaming
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy
from tests.fakes import character_tokenizer
from tests.serving.running import make_service, offline, running, wait_until

TURNS = [{"role": "user", "content": "What is 7+8?"}]
TEMPLATE = (
    "{% if enable_thinking is defined and not enable_thinking %}#{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def chat_service():
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.chat_template = TEMPLATE
    policy, _ = make_policy("llama", eos_bias=1.0)
    limits = ServingConfig(places=8)
    models = ServedModels(policy, tokenizer, None, DecodingConfig(), limits, name="tiny")
    return Service(models, limits)


@pytest.fixture(scope="module")
def chat(chat_service):
    with running(chat_service) as (address, _):
        yield address


@pytest.fixture
def client(chat):
    with openai.OpenAI(base_url=f"{chat}/v1", api_key="none", max_retries=0) as found:
        yield found


def complete(client, prompt="What is 7+8?", **fields):
    return client.completions.create(
        model="tiny", prompt=prompt, **{"max_tokens": 20, "seed": 3, **fields}
    )


SAMPLING = [
    {"top_p": 0.6}, {"temperature": 0.7, "top_p": 0.9}, {"presence_penalty": 1.5},
    {"frequency_penalty": -0.9}, {"logit_bias": {"20": 6, "21": -100}},
]
OURS = [
    {"top_k": 5}, {"min_p": 0.2}, {"repetition_penalty": 1.4}, {"min_tokens": 12},
    {"ignore_eos": True}, {"stop_token_ids": [20, 21, 22, 23, 24, 25]}, {"temperature": 0},
]


@pytest.mark.parametrize("fields", [*SAMPLING, *OURS, {"stop": ["e", "12"]}, {}])
def test_settings_mean_what_they_mean_offline(chat_service, client, fields):
    more = {"extra_body": fields} if fields in OURS else fields
    settings = {"seed": 3, "max_new_tokens": 20, **fields}
    if settings.get("temperature") == 0:
        settings["mode"] = "greedy"
        del settings["temperature"]
    text = "What is 7+8?"
    ids = chat_service.served.engine.tokenizer.encode(text)
    # Prompts of completions are raw, conversations are written by the template.
    raw = Request(id="0", prompt=text, prompt_ids=ids)
    found = [
        complete(client, **more).choices[0],
        client.chat.completions.create(
            model="tiny", messages=TURNS, max_completion_tokens=20, seed=3, **more
        ).choices[0],
    ]
    told = [found[0].text, found[1].message.content]
    for one, choice, prompt in zip(told, found, (raw, text), strict=True):
        [right] = offline(chat_service, [prompt], **settings)
        assert one == right.completion
        assert choice.finish_reason == right.finish_reason


def log_softmax(service, ids):
    with torch.no_grad():
        return service.served.engine.policy(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.4, "top_p": 0.8}, {"stop": "e"}])
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_completions(chat_service, client, fields, stream):
    more = {"logprobs": 3, "extra_body": {"return_token_ids": True}, **fields}
    if stream:
        parts = list(complete(client, stream=True, **more))
        told = [part.choices[0].logprobs for part in parts if part.choices[0].logprobs]
        tokens, values, tops, offsets = (
            [value for one in told for value in getattr(one, name)]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        )
        ids, text = parts[-1].choices[0].token_ids, "".join(p.choices[0].text for p in parts)
    else:
        [choice] = complete(client, **more).choices
        told = choice.logprobs
        tokens, values, tops, offsets = (
            told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset
        )
        ids, text = choice.token_ids, choice.text
    prompt = chat_service.served.engine.tokenizer.encode("What is 7+8?")
    logs = log_softmax(chat_service, [*prompt, *ids])[len(prompt) - 1 :]
    right = [float(logs[place, token]) for place, token in enumerate(ids)]
    assert values == pytest.approx(right, abs=1e-4)
    assert len(tokens) == len(tops) == len(offsets) == len(ids)
    shown = chat_service.served.engine.tokenizer.decode(ids, skip_special_tokens=False)
    assert "".join(tokens) == shown
    assert shown.startswith(text[:5])
    for place, (token, top, value) in enumerate(zip(tokens, tops, values, strict=True)):
        assert top[token] == pytest.approx(value)
        best = logs[place].topk(3).values.tolist()
        assert sorted(top.values(), reverse=True)[:3] == pytest.approx(best, abs=1e-4)
        assert len(top) in (3, 4)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_chats(chat_service, client, stream):
    fields = {"model": "tiny", "messages": TURNS, "max_tokens": 12, "seed": 5, "logprobs": True,
              "top_logprobs": 2, "extra_body": {"return_token_ids": True}}
    if stream:
        parts = list(client.chat.completions.create(stream=True, **fields))
        content = [one for part in parts if part.choices[0].logprobs
                   for one in part.choices[0].logprobs.content]
        ids = parts[-1].choices[0].token_ids
    else:
        [choice] = client.chat.completions.create(**fields).choices
        content, ids = choice.logprobs.content, choice.token_ids
    prompt = chat_service.served.encode([Message(**turn) for turn in TURNS])
    logs = log_softmax(chat_service, [*prompt, *ids])[len(prompt) - 1 :]
    assert [one.logprob for one in content] == pytest.approx(
        [float(logs[place, token]) for place, token in enumerate(ids)], abs=1e-4
    )
    for place, one in enumerate(content):
        assert bytes(one.bytes).decode() == one.token
        assert [top.logprob for top in one.top_logprobs] == pytest.approx(
            logs[place].topk(2).values.tolist(), abs=1e-4
        )
    plain = client.chat.completions.create(**fields | {"top_logprobs": None})
    assert all(one.top_logprobs == [] for one in plain.choices[0].logprobs.content)


def test_without_being_asked_nothing_is_told(client):
    assert complete(client).choices[0].logprobs is None
    for part in complete(client, stream=True):
        assert part.choices[0].logprobs is None


@pytest.mark.parametrize("logprobs", [None, 2])
def test_an_echo_can_be_streamed(client, logprobs):
    whole = complete(client, echo=True, logprobs=logprobs, n=2)
    parts = list(complete(client, echo=True, logprobs=logprobs, n=2, stream=True))
    for choice in whole.choices:
        mine = [p.choices[0] for p in parts if p.choices[0].index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        if logprobs is None:
            assert choice.logprobs is None
            continue
        for name in ("tokens", "token_logprobs", "text_offset"):
            told = [value for one in mine if one.logprobs for value in getattr(one.logprobs, name)]
            assert told[1:] == pytest.approx(getattr(choice.logprobs, name)[1:]) or (
                told == getattr(choice.logprobs, name)
            )
        assert choice.logprobs.token_logprobs[0] is None


def test_usage_of_streams(chat):
    body = {"prompt": "Who?", "seed": 1, "stream": True, "max_tokens": 9}
    for options in ({}, {"include_usage": True},
                    {"include_usage": True, "continuous_usage_stats": True}):
        reply = httpx.post(f"{chat}/v1/completions", json=body | {"stream_options": options})
        events = [json.loads(line[6:]) for line in reply.text.splitlines()
                  if line.startswith("data: {")]
        if not options:
            assert not any("usage" in event for event in events)
            continue
        *parts, last = events
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens"] == 4
        if len(options) == 1:
            assert [event["usage"] for event in parts] == [None] * len(parts)
        else:
            counts = [event["usage"]["completion_tokens"] for event in parts]
            assert counts == sorted(counts)
            assert counts[0] == 1
            assert counts[-1] == last["usage"]["completion_tokens"]


def test_all_samples_of_best_of_n_are_billed(folder):
    service = make_service(folder, head="scalar", method="best_of_n")
    with running(service) as (address, _), openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0
    ) as client:
        found = complete(client, best_of=4)
        cost = found.choices[0].guidance["cost"]
        assert found.usage.completion_tokens == cost["lm_calls"] > cost["new_tokens"]
        *_, last = complete(client, best_of=4, stream=True,
                            stream_options={"include_usage": True}, logprobs=1)
        assert last.usage == found.usage


def test_the_chat_template_gets_settings(chat, client):
    def count(**extra):
        return client.chat.completions.create(
            model="tiny", messages=[*TURNS, {"role": "assistant", "content": "It is 1"}],
            max_tokens=1, extra_body=extra,
        ).usage.prompt_tokens

    whole = len("<user>What is 7+8?<assistant>It is 1<assistant>")
    assert count() == whole
    assert count(chat_template_kwargs={"enable_thinking": False}) == whole + 1
    assert count(chat_template_kwargs={"enable_thinking": True}) == whole
    closed = len("<user>What is 7+8?<assistant>It is 1")
    assert count(add_generation_prompt=False) == closed
    assert count(add_generation_prompt=False, continue_final_message=True) == closed
    with pytest.raises(openai.BadRequestError, match="not compatible"):
        client.chat.completions.create(
            model="tiny", messages=TURNS, max_tokens=1,
            extra_body={"chat_template_kwargs": {"continue_final_message": True}},
        )


def test_the_servers_own_defaults(folder):
    service = make_service(folder)
    served = service.served
    defaults = DecodingConfig(method="none", stop=["e", "a"], top_p=0.5, repetition_penalty=1.3)
    service = Service(ServedModels(
        served.engine.policy, served.engine.tokenizer, None, defaults, service.limits, name="tiny"
    ), service.limits)
    with running(service) as (address, _), openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0
    ) as client:
        told = [complete(client, **fields).choices[0].text for fields in (
            {}, {"stop": []}, {"top_p": 1.0},
        )]
    for text, fields in zip(told, ({}, {"stop": ()}, {"top_p": 1.0}), strict=True):
        assert text == offline(service, ["What is 7+8?"], seed=3, max_new_tokens=20,
                               **fields)[0].completion
    assert not set("ea") & set(told[0])


def test_streams_that_wait_send_comments(chat, chat_service, monkeypatch):
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.05)
    with httpx.stream("POST", f"{chat}/v1/completions", json={
        "prompt": "a", "max_tokens": 400, "stream": True, "ignore_eos": True,
        # Nothing is given out while all may be the beginning of a stop string.
        "logit_bias": {"20": 100}, "temperature": 0,
        "stop": [chat_service.served.engine.tokenizer.decode([20]) * 250],
    }, timeout=60) as reply:
        lines = list(reply.iter_lines())
    assert ": ping" in lines
    assert lines[-2] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert texts[-1]["finish_reason"] == "stop"
    wait_until(lambda: chat_service.worker.busy == 0)
