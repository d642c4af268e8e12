"""One request's trouble is its own: others beside it in the batch get their answers."""

import threading

import httpx
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import is_fatal
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy, make_scorer
from tests.fakes import character_tokenizer
from tests.serving.running import client, make_service, offline, running, wait_until

MARK = character_tokenizer().convert_tokens_to_ids("#")


def beside(address, service, bad, *, innocents=3, tokens=60, **settings):
    """The reply to a bad request that comes while others are being answered, and theirs."""
    found = [None] * innocents
    with client(address) as http:
        def ask(number):
            body = {"prompt": "innocent", "max_tokens": tokens, "seed": number, **settings}
            found[number] = http.post("/v1/completions", json=body)

        threads = [threading.Thread(target=ask, args=[n]) for n in range(innocents)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.worker.busy == innocents)
        reply = http.post("/v1/completions", json=bad)
        for thread in threads:
            thread.join(60)
    return reply, found


def right(service, found, tokens=60):
    for number, reply in enumerate(found):
        assert reply.status_code == 200, reply.text
        [one] = offline(service, ["innocent"], seed=number, max_new_tokens=tokens)
        assert reply.json()["choices"][0]["text"] == one.completion


@pytest.fixture
def endless(folder):
    service = make_service(folder)
    service.served.engine.stop_ids = frozenset()
    return service


def endless_right(service, found, tokens=60):
    assert [reply.status_code for reply in found] == [200] * len(found)
    for reply in found:
        assert reply.json()["usage"]["completion_tokens"] == tokens


def test_a_reward_that_is_no_number(endless):
    scorer = endless.served.scorer
    plain = scorer.next_token

    def damaged(ids, mask, cache=None):
        rewards = plain(ids, mask, cache).clone()
        rewards[(ids == MARK).any(dim=1)] = float("nan")
        return rewards

    scorer.next_token = damaged
    # Innocents draw no mark of their own.
    endless.served.engine.policy.lm_head.bias.data[MARK] = -1e4
    with running(endless) as (address, _):
        reply, found = beside(address, endless, {"prompt": "#", "max_tokens": 4})
    assert reply.status_code == 500
    message = reply.json()["error"]["message"]
    assert "NaN or infinite" in message
    assert "What was finished before" not in message
    endless_right(endless, found)


@pytest.mark.parametrize("error", [RuntimeError("a shape"), torch.OutOfMemoryError("no room")])
def test_a_row_that_breaks_the_forward_pass(endless, error):
    """Nobody says which row it was: each is tried alone, and the innocent ones draw on."""
    policy = endless.served.engine.policy
    forward = policy.forward

    def breaks(*args, **options):
        if bool((options["input_ids"] == MARK).any()):
            raise error
        return forward(*args, **options)

    policy.lm_head.bias.data[MARK] = -1e4
    with running(endless) as (address, _):
        policy.forward = breaks
        reply, found = beside(address, endless, {"prompt": "#", "max_tokens": 4})
        policy.forward = forward
        assert endless.worker.alive
    assert reply.status_code == (503 if isinstance(error, torch.OutOfMemoryError) else 500)
    endless_right(endless, found)
    for number, one in enumerate(found):
        [whole] = offline(endless, ["innocent"], seed=number, max_new_tokens=60)
        # The same draws as without the trouble, up to where the offline run ends by itself.
        assert one.json()["choices"][0]["text"].startswith(whole.completion[:20])


def test_memory_for_fewer_rows_than_places(folder):
    """Rows that fit alone but not together are decoded fewer at a time."""
    service = make_service(folder, method="none")
    policy = service.served.engine.policy
    forward = policy.forward

    def narrow(*args, **options):
        if options["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("no room")
        return forward(*args, **options)

    policy.forward = narrow
    with running(service) as (address, _):
        reply = httpx.post(f"{address}/v1/completions", timeout=60, json={
            "prompt": ["a", "b", "c", "d", "e", "f"], "max_tokens": 12, "seed": 1,
        })
        assert reply.status_code == 200, reply.text
    policy.forward = forward
    whole = offline(service, ["a", "b", "c", "d", "e", "f"], seed=1, max_new_tokens=12)
    assert [one["text"] for one in reply.json()["choices"]] == [one.completion for one in whole]


def test_a_broken_accelerator_is_told(folder):
    service = make_service(folder, method="none")

    def fails(*args, **options):
        raise RuntimeError("CUDA error: device-side assert triggered")

    service.served.engine.policy.forward = fails
    with running(service) as (address, _):
        reply = httpx.post(f"{address}/v1/completions", json={"prompt": "a"})
        assert reply.status_code == 500
        assert httpx.get(f"{address}/healthz").status_code == 503
    assert not is_fatal(torch.OutOfMemoryError("CUDA error: out of memory"))
    assert not is_fatal(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))


def test_special_tokens_of_the_policy_alone(folder):
    """They may stand in a prompt; whoever is beside it is not touched."""
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    policy, _ = make_policy("llama", vocab_size=len(tokenizer), eos_bias=-50.0)
    for method, head in (("farma", "vocabulary"), ("args", "scalar")):
        config = ServingConfig(places=8)
        served = ServedModels(
            policy, tokenizer, make_scorer(folder, head, "", Template()),
            DecodingConfig(method=method, top_k=5), config, name="tiny",
        )
        service = Service(served, config)
        with running(service) as (address, _):
            reply, found = beside(address, service, {"prompt": "a<|tool|>b", "max_tokens": 4})
            assert reply.status_code in (200, 400), reply.text
            endless_right(service, found)
            assert httpx.post(f"{address}/v1/completions", json={
                "prompt": [1, len(tokenizer)], "max_tokens": 1
            }).status_code == 400


def test_a_client_that_leaves(endless):
    with running(endless) as (address, _), client(address) as http:
        results = []
        thread = threading.Thread(target=lambda: results.append(http.post(
            "/v1/completions", json={"prompt": "innocent", "max_tokens": 80, "seed": 0}
        )))
        thread.start()
        wait_until(lambda: endless.worker.busy == 1)
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json={"prompt": "a", "max_tokens": 400}, timeout=0.1)
        thread.join(60)
    endless_right(endless, results, 80)


def test_a_template_that_refuses(folder):
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    policy, _ = make_policy("llama", eos_bias=-50.0)
    limits = ServingConfig(places=8)
    served = ServedModels(policy, tokenizer, None, DecodingConfig(), limits, name="tiny")
    with running(Service(served, limits)) as (address, _):
        def ask(*roles):
            turns = [{"role": role, "content": "y"} for role in roles]
            return httpx.post(f"{address}/v1/chat/completions",
                              json={"messages": turns, "max_tokens": 2})

        for roles in (["system", "user"], ["developer", "user"]):
            reply = ask(*roles)
            assert reply.status_code == 400
            assert "System role not supported" in reply.json()["error"]["message"]
        reply = ask("usr")
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "messages.0.role"
        assert ask("user").status_code == 200


def test_text_that_the_tokenizer_cannot_write(folder, caplog):
    service = make_service(folder)
    plain = service.served.engine.tokenizer

    class Cannot:
        def __getattr__(self, name):
            return getattr(plain, name)

        def __call__(self, texts, **options):
            # What the tokenizers library raises.
            raise Exception("WordLevel error: Missing [UNK] token from the vocabulary")

    service.served.engine.tokenizer = Cannot()
    with running(service) as (address, _):
        reply = httpx.post(f"{address}/v1/completions", json={"prompt": "Zebra"})
    assert reply.status_code == 400
    assert "cannot be written with the tokenizer" in reply.json()["error"]["message"]
    # The client is told the library's reason; the log has neither it nor the text.
    assert "Missing [UNK]" in reply.json()["error"]["message"]
    assert "UNK" not in caplog.text
