"""lm-evaluation-harness: its requests as it sends them, and itself where it is installed."""

import json

import httpx
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy
from tests.fakes import character_tokenizer
from tests.serving.running import running

PAIRS = [("What is 7+8?", " 15"), ("a", "b"), ("Who?", " me."), ("zz top", " 3"), ("x", " yy")]
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 7+8?"}]


@pytest.fixture(scope="module")
def service():
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    policy, _ = make_policy("llama", eos_bias=1.0)
    limits = ServingConfig(places=8)
    models = ServedModels(policy, tokenizer, None, DecodingConfig(), limits, name="tiny")
    return Service(models, limits)


@pytest.fixture(scope="module")
def address(service):
    with running(service) as (found, _):
        yield found


def likelihood(service, context, continuation):
    """Log-probability of a continuation, and whether greedy decoding writes it."""
    engine = service.served.engine
    ids, begin = engine.tokenizer.encode(context + continuation), len(context)
    with torch.no_grad():
        logs = engine.policy(torch.tensor([ids])).logits[0].log_softmax(-1)[begin - 1 : -1]
    taken = ids[begin:]
    return (
        sum(float(row[token]) for row, token in zip(logs, taken, strict=True)),
        logs.argmax(-1).tolist() == taken,
    )


@pytest.mark.parametrize("as_ids", [True, False])
def test_requests_for_likelihoods(service, address, as_ids):
    """Version 0.4.13, `LocalCompletionsAPI`: payload and what is read from the answer."""
    best = greedy_continuation(service, "Who?")
    pairs = [*PAIRS, ("Who?", best)]
    texts = [context + continuation for context, continuation in pairs]
    encode = service.served.engine.tokenizer.encode
    reply = httpx.post(f"{address}/v1/completions", timeout=60, json={
        "model": "tiny", "prompt": [encode(text) for text in texts] if as_ids else texts,
        "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True,
    })
    assert reply.status_code == 200, reply.text
    choices = sorted(reply.json()["choices"], key=lambda choice: choice["index"])
    for (context, continuation), choice in zip(pairs, choices, strict=True):
        told = choice["logprobs"]
        values = told["token_logprobs"][len(context) : -1]
        tops = told["top_logprobs"][len(context) : -1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        right, best = likelihood(service, context, continuation)
        assert sum(values) == pytest.approx(right, abs=1e-4)
        assert greedy == best
    assert best


def greedy_continuation(service, prompt):
    engine = service.served.engine
    ids = torch.tensor([engine.tokenizer.encode(prompt)])
    with torch.no_grad():
        best = int(engine.policy(ids).logits[0, -1, 3:].argmax()) + 3
    # A character, no special token: the policy's first choice must be one for this prompt.
    return engine.tokenizer.decode([best])


@pytest.mark.parametrize("more", [{}, {"top_p": 0.9, "temperature": 0.7}])
def test_requests_for_text(service, address, more):
    body = {"model": "tiny", "max_tokens": 12, "temperature": 0, "seed": 1234, **more}
    encode = service.served.engine.tokenizer.encode
    reply = httpx.post(f"{address}/v1/completions", json={
        **body, "prompt": [encode("What is 7+8?"), encode("a")], "stop": ["x", "\n", "<eos>"],
    })
    assert reply.status_code == 200, reply.text
    assert [choice["index"] for choice in reply.json()["choices"]] == [0, 1]
    # Older versions write what kind a message is.
    for turns in (TURNS, [{**turn, "type": "text"} for turn in TURNS]):
        reply = httpx.post(f"{address}/v1/chat/completions", json={
            **body, "messages": turns, "stop": ["x", "\n"],
        })
        assert reply.status_code == 200, reply.text
        assert isinstance(reply.json()["choices"][0]["message"]["content"], str)


def test_the_harness_itself(service, address, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    service.served.engine.tokenizer.save_pretrained(tmp_path)
    plain = LocalCompletionsAPI(
        base_url=f"{address}/v1/completions", model="tiny", tokenizer=str(tmp_path), batch_size=4,
        max_length=512, num_concurrent=2,
    )
    asked = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(PAIRS)]
    for pair, (value, greedy) in zip(PAIRS, plain.loglikelihood(asked), strict=True):
        right, best = likelihood(service, *pair)
        assert value == pytest.approx(right, abs=1e-4)
        assert greedy == best
    text = "Hello there, world!"
    [rolling] = plain.loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, (text,), 0)]
    )
    engine = service.served.engine
    ids = [engine.tokenizer.eos_token_id, *engine.tokenizer.encode(text)]
    with torch.no_grad():
        logs = engine.policy(torch.tensor([ids])).logits[0].log_softmax(-1)
    right = sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
    assert rolling == pytest.approx(right, abs=1e-3)
    settings = {"until": ["x", "\n"], "max_gen_toks": 12, "temperature": 0.7, "top_p": 0.9}
    written = plain.generate_until([
        Instance("generate_until", {}, (prompt, dict(settings)), place)
        for place, prompt in enumerate(["What is 7+8?", "a"])
    ])
    assert len(written) == 2
    assert not any("x" in one for one in written)
    chat = LocalChatCompletion(base_url=f"{address}/v1/chat/completions", model="tiny")
    [said] = chat.generate_until([
        Instance("generate_until", {}, (JsonChatStr(json.dumps(TURNS)), dict(settings)), 0)
    ])
    assert isinstance(said, str)
