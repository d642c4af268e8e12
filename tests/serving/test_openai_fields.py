"""Requests as official clients send them, and what wrong ones are told."""

import httpx
import openai
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy
from tests.fakes import character_tokenizer
from tests.serving.running import make_service, running

CHAT = "/v1/chat/completions"
TURN = {"role": "user", "content": "hi"}
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def post(address, path, **body):
    return httpx.post(address + path, json=body, timeout=60)


@pytest.fixture(scope="module")
def chat_service():
    """A chat model alone."""
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.chat_template = TEMPLATE
    policy, _ = make_policy("llama", eos_bias=-50.0)
    limits = ServingConfig(places=8)
    models = ServedModels(policy, tokenizer, None, DecodingConfig(), limits, name="tiny")
    return Service(models, limits)


@pytest.fixture(scope="module")
def chat(chat_service):
    with running(chat_service) as (address, _):
        yield address


@pytest.mark.parametrize("field", [
    "tools", "tool_choice", "functions", "parallel_tool_calls", "top_logprobs", "logprobs",
    "reasoning_effort", "modalities", "verbosity", "seed", "stop", "max_tokens", "stream_options",
    "response_format", "prediction", "audio", "weight", "method", "n", "temperature",
])
def test_null_is_absent(chat, field):
    reply = post(chat, CHAT, messages=[TURN], max_completion_tokens=1, **{field: None})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("fields", [
    {"top_p": 1}, {"top_p": 1.0}, {"tools": []}, {"tool_choice": "none"}, {"logit_bias": {}},
    {"frequency_penalty": 0}, {"min_p": 0.0}, {"repetition_penalty": 1.0}, {"user": "me"},
    {"response_format": {"type": "text"}}, {"safety_identifier": "x"}, {"store": False},
    {"metadata": {"a": "b"}}, {"skip_special_tokens": True}, {"n": 1, "best_of": 1},
    {"stop": []}, {"top_k": -1}, {"temperature": 1e-40}, {"weight": 0},
])
def test_what_asks_for_nothing_is_taken(chat, fields):
    reply = post(chat, CHAT, messages=[TURN], max_tokens=1, **fields)
    assert reply.status_code == 200, reply.text


def test_an_answer_can_be_sent_back(chat):
    with openai.OpenAI(base_url=f"{chat}/v1", api_key="none", max_retries=0) as client:
        turns = [TURN]
        first = client.chat.completions.create(model="tiny", messages=turns, max_tokens=3)
        turns += [first.choices[0].message, {"role": "user", "content": "more", "name": "Ann"}]
        again = client.chat.completions.create(model="tiny", messages=turns, max_tokens=3)
    assert again.choices[0].finish_reason == "length"
    whole = {"role": "assistant", "content": "b", "refusal": None, "tool_calls": None,
             "annotations": [], "audio": None, "function_call": None, "reasoning_content": None}
    assert post(chat, CHAT, messages=[TURN, whole, TURN], max_tokens=1).status_code == 200


def test_developers_are_the_system(chat, chat_service):
    counts = [
        post(chat, CHAT, messages=[{"role": role, "content": "Be kind."}, TURN],
             max_tokens=1).json()["usage"]["prompt_tokens"]
        for role in ("system", "developer")
    ]
    assert counts[0] == counts[1] == len("<system>Be kind.<user>hi<assistant>")


def test_text_parts_are_joined(chat):
    parts = [{"type": "text", "text": "h", "cache_control": {"type": "ephemeral"}},
             {"type": "text", "text": "i"}]
    reply = post(chat, CHAT, messages=[{"role": "user", "content": parts}], max_tokens=1)
    assert reply.json()["usage"]["prompt_tokens"] == len("<user>hi<assistant>")


@pytest.mark.parametrize(("body", "param", "message"), [
    ({"messages": "hi"}, "messages", "expected an array, got 'hi'"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "user"}]}, "messages.0", "with content"),
    ({"messages": [{"content": "x"}]}, "messages.0.role", "required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content",
     "expected a string or an array, got 5"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
     "messages.0.content.0.type", "got 'image_url'"),
    ({"messages": [TURN], "max_tokens": "many"}, "max_tokens", "expected an integer, got 'many'"),
    ({"messages": [TURN], "temperature": {}}, "temperature", "expected a number, got an object"),
    ({"messages": [TURN], "temperature": 200}, "temperature", "at most 100, got 200"),
    ({"messages": [TURN], "weight": 1e39}, "weight", "at most 1e+20"),
    ({"messages": [TURN], "weight": -1e308}, "weight", "at least -1e+20"),
    ({"messages": [TURN], "weight": 1e25}, "weight", "at most 1e+20"),
    ({"messages": [TURN], "top_p": 1.1}, "top_p", "at most 1, got 1.1"),
    ({"messages": [TURN], "logit_bias": {"a": 1}}, "logit_bias.a", "expected an integer"),
    ({"messages": [TURN], "logit_bias": {"5": 200}}, "logit_bias.5", "at most 100, got 200"),
    ({"messages": [TURN], "logit_bias": {"99999": 1}}, "logit_bias", "token ids must be from 0 to"),
    ({"messages": [TURN], "stop_token_ids": [80]}, "stop_token_ids", "token ids must be from 0 to"),
    ({"messages": [TURN], "presence_penalty": -3}, "presence_penalty", "at least -2"),
    ({"messages": [TURN], "repetition_penalty": 0}, "repetition_penalty", "at least 0.01"),
    ({"messages": [TURN], "min_tokens": 9, "max_tokens": 4}, "min_tokens", "exceeds the longest"),
    ({"messages": [TURN], "chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs",
     "chat_template is none"),
    ({"messages": [TURN], "continue_final_message": True}, None, "prompt to be false"),
    ({"messages": [TURN], "tools": [{"type": "function"}]}, "tools", "call no tools"),
    ({"messages": [TURN], "top_logprobs": 2}, None, "logprobs to be true"),
    ({"messages": [TURN], "response_format": {"type": "json_object"}}, "response_format",
     "(--engine vllm), which has structured output"),
    ({"messages": [TURN], "guided_json": {}}, "guided_json", "--engine vllm"),
    ({"messages": [TURN], "wieght": 2}, "wieght", "Did you mean 'weight'?"),
    ({"messages": [TURN], "max_tokens": 0}, "max_tokens", "at least 1"),
    ({"messages": [TURN], "max_tokens": 5000}, "max_tokens", "at most 1024, got 5000"),
    ({"messages": [TURN], "stop": ""}, "stop", "1 to 256 characters"),
    ({"messages": [TURN], "stop": ["a" * 300]}, "stop", "1 to 256 characters"),
    # Settings without meaning, as the command line refuses them.
    ({"messages": [TURN], "weight": 1.5}, "weight", "means nothing to the method 'none'"),
    ({"messages": [TURN], "target_kl": 0.5}, "target_kl", "means nothing"),
    ({"messages": [TURN], "method_settings": {"branches": 2}}, "method_settings.branches",
     "means nothing to the method 'none'; leave it out, or use beam or dvts"),
    ({"messages": [TURN], "max_kl": 0.5}, "max_kl", "means nothing"),
    ({"messages": [TURN], "weight_schedule": "linear", "weight_end": 3}, "weight_schedule",
     "means nothing"),
    ({"messages": [TURN], "stream_options": {"include_usage": True}}, "stream_options",
     "are for streams"),
])
def test_wrong_requests_are_told_in_the_apis_words(chat, body, param, message):
    reply = post(chat, CHAT, **body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    for inner in ("function-after", "Input should", "str]", "constrained", "_readable"):
        assert inner not in reply.text


@pytest.mark.parametrize(("prompt", "message"), [
    (5, "expected a string or an array, got 5"), ([], "at least 1"),
    ({"a": 1}, "got an object"),
])
def test_wrong_prompts(chat, prompt, message):
    reply = post(chat, "/v1/completions", prompt=prompt)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "prompt"
    assert message in reply.json()["error"]["message"]


def test_broken_json(chat):
    reply = httpx.post(f"{chat}/v1/completions", content='{"prompt": "a",}',
                       headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("The body is not valid JSON: ")
    assert reply.json()["error"]["param"] is None


def test_other_methods_of_http(chat):
    reply = httpx.get(f"{chat}/v1/completions")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert "POST" in reply.json()["error"]["message"]
    assert httpx.get(f"{chat}/health").status_code == 200
    for path in ("/health", "/healthz", "/v1/models", "/metrics", "/"):
        reply = httpx.head(f"{chat}{path}")
        assert (reply.status_code, reply.content) == (200, b"")
    assert httpx.head(f"{chat}/v1/completions").status_code == 405
    assert httpx.head(f"{chat}/nowhere").status_code == 404


# --- completions ----------------------------------------------------------------------------------


def test_prompts_of_completions_are_read_raw(chat, chat_service):
    """No chat template, and beginning-of-text once where the tokenizer adds one."""
    text = "The capital of France is"
    reply = post(chat, "/v1/completions", prompt=text, max_tokens=1)
    assert reply.json()["usage"]["prompt_tokens"] == len(text)
    reply = post(chat, "/v1/completions", prompt=text, max_tokens=1, apply_template=True)
    assert reply.json()["usage"]["prompt_tokens"] == len(f"<user>{text}<assistant>")
    ids = httpx.post(f"{chat}/tokenize", json={"prompt": text}).json()["tokens"]
    assert ids == chat_service.served.engine.tokenizer.encode(text)
    talk = httpx.post(f"{chat}/tokenize", json={"messages": [TURN]}).json()
    assert talk["count"] == len("<user>hi<assistant>")


def test_a_beginning_of_text_is_written_once():
    from tokenizers.processors import TemplateProcessing

    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.bos_token = "<eos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    policy, _ = make_policy("llama")
    served = ServedModels(policy, tokenizer, None, DecodingConfig(), ServingConfig(), name="tiny")
    assert served.encode_raw("ab") == served.encode_raw("<eos>ab") == tokenizer.encode("ab")
    assert len(served.encode_raw("ab")) == 3


def test_as_long_as_may_be(chat):
    prompt = "a" * 500
    reply = post(chat, "/v1/completions", prompt=prompt, max_tokens=-1, temperature=0)
    assert reply.json()["usage"]["completion_tokens"] == 512 - 500


@pytest.mark.parametrize("length", [0, 1, 4])
def test_echoes_score_prompts(chat, chat_service, length):
    """As harnesses ask: the log-probability of every token of the prompt."""
    prompts = ["What is 7+8? 15", "a"]
    reply = post(chat, "/v1/completions", prompt=prompts, max_tokens=length, echo=True, logprobs=2,
                 temperature=0.0)
    assert reply.status_code == 200, reply.text
    engine = chat_service.served.engine
    for prompt, choice in zip(prompts, reply.json()["choices"], strict=True):
        told = choice["logprobs"]
        ids = engine.tokenizer.encode(prompt)
        assert choice["text"].startswith(prompt)
        assert len(choice["text"]) == len(prompt) + length
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        with torch.no_grad():
            logs = engine.policy(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        right = [float(logs[place, token]) for place, token in enumerate(ids[1:])]
        assert told["token_logprobs"][1 : len(ids)] == pytest.approx(right, abs=1e-4)
        assert len(told["tokens"]) == len(told["text_offset"]) == len(ids) + length
        assert "".join(told["tokens"])[: len(prompt)] == prompt
        for place, best in enumerate(told["top_logprobs"][1 : len(ids)]):
            assert max(best.values()) == pytest.approx(float(logs[place].max()), abs=1e-4)
    with openai.OpenAI(base_url=f"{chat}/v1", api_key="none", max_retries=0) as client:
        found = client.completions.create(model="tiny", prompt="ab", max_tokens=0, echo=True,
                                          logprobs=1)
    assert found.choices[0].logprobs.token_logprobs[1] < 0


def test_an_echo_without_log_probabilities(chat):
    reply = post(chat, "/v1/completions", prompt="ab", max_tokens=2, echo=True)
    assert reply.json()["choices"][0]["text"].startswith("ab")
    assert reply.json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(("fields", "param"), [
    ({"max_tokens": 0}, "max_tokens"), ({"logprobs": 21}, "logprobs"),
    ({"echo": True, "stream": True, "max_tokens": 0}, "max_tokens"),
])
def test_echoes_that_are_refused(chat, fields, param):
    reply = post(chat, "/v1/completions", prompt="a", **fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


# --- defaults -------------------------------------------------------------------------------------


def test_draws_are_from_all_tokens_unless_somebody_says_otherwise(folder):
    service = make_service(folder)
    served = service.served
    plain = DecodingConfig(method="farma")
    assert served.start_of(None)["top_k"] == 5, "as the server was started"
    policy, tokenizer, limits = served.engine.policy, served.engine.tokenizer, ServingConfig()
    unset = ServedModels(policy, tokenizer, served.scorer, plain, limits)
    assert unset.start_of(None)["top_k"] == unset.start_of("none")["top_k"] == 0
    assert unset.start_of("args")["top_k"] == 10
    policy.generation_config.top_k = 7
    try:
        told = ServedModels(policy, tokenizer, served.scorer, plain, limits)
        assert told.start_of(None)["top_k"] == 7
        assert told.start_of("cd")["top_k"] == 10
    finally:
        policy.generation_config.top_k = None


def test_best_of_n_scores_what_the_client_gets(folder):
    service = make_service(folder, head="scalar", method="best_of_n")
    service.served.engine.stop_ids = frozenset()
    # Special tokens, which no text shows.
    service.served.engine.policy.lm_head.bias.data[:3] = -1e4
    scored = []
    score = service.served.scorer.score_ids

    def spy(prompts, responses, **options):
        scored.extend(list(one) for one in responses)
        return score(prompts, responses, **options)

    service.served.scorer.score_ids = spy
    with running(service) as (address, _):
        reply = post(address, "/v1/completions", prompt="What is", max_tokens=40, seed=0, best_of=3,
                     stop=["e", "a", "ot", "n"]).json()
    tokenizer = service.served.scorer.tokenizer
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in scored]
    assert len(texts) == 3
    assert reply["choices"][0]["text"] in texts
    assert not any(stop in text for text in texts for stop in ("e", "a", "ot", "n"))
    [reward] = service.served.scorer.score(["What is"], [reply["choices"][0]["text"]])
    assert reply["choices"][0]["guidance"]["reward"] == pytest.approx(reward, abs=1e-4)


def test_candidate_methods_are_known_by_what_they_are(folder, monkeypatch):
    """A new one is served without a word anywhere else."""
    import sys
    import types

    from rewardsteer.decoding.guides.base import LogitsGuide
    from rewardsteer.decoding.methods import METHODS

    class Mine(LogitsGuide):
        asks = "candidates"
        needs = "scalar"

    module = types.ModuleType("a_method_of_ones_own")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS._entries, "mine", f"{module.__name__}:Mine")
    service = make_service(folder, head="scalar", method="args")
    with running(service) as (address, _):
        assert "mine" in service.served.methods.names
        for method, top_k in (("mine", 5), ("mine", None)):
            reply = post(address, "/v1/completions", prompt="a", max_tokens=2, method=method,
                         top_k=top_k)
            assert reply.status_code == 200, reply.text
