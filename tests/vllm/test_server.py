"""vLLM's own server: guided completions and chat, and rewards on its classification endpoint."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.models.scorer import Scorer  # noqa: E402
from tests.fakes import character_tokenizer  # noqa: E402
from tests.vllm.models import (  # noqa: E402
    LENGTH,
    PROCESSOR,
    WEIGHTS,
    expected,
    make_requests,
    save_models,
)

NEW = 16
START_SECONDS = 240


class Server:
    """``python -m vllm.entrypoints.openai.api_server`` in a process of its own."""

    def __init__(self, log, model, *options, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
            "--served-model-name", "m", "--dtype", "float32", "--enforce-eager",
            "--max-model-len", str(LENGTH), "--host", "127.0.0.1", "--port", str(self.port),
            *options,
        ]
        self.log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | environment
            )

    def wait(self):
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.5)

    def post(self, path, **body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps({"model": "m"} | body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def servers(root):
    """Guided generation, and scoring; they start side by side."""
    started = [
        Server(
            root / "guided.log", root / "policy", "--logits-processors", PROCESSOR,
            REWARDSTEER_REWARD_MODEL=str(root / "farma"),
        ),
        Server(root / "scoring.log", root / "args", "--runner", "pooling"),
    ]
    yield [server.wait() for server in started]
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def guided(servers):
    return servers[0]


def chat_prompt(content):
    return f"user: {content}\n"


def test_32_clients_get_what_the_transformers_engine_gives(guided, root):
    requests = make_requests(32, 40)
    chats = [
        request.model_copy(update={
            "prompt_ids": character_tokenizer().encode(chat_prompt(request.prompt))
        }) if number % 2 else request
        for number, request in enumerate(requests)
    ]
    weights = [WEIGHTS[number // 2 % 4] for number in range(32)]
    options = {"temperature": 0, "max_tokens": NEW, "return_token_ids": True}

    def ask(number):
        xargs = {"vllm_xargs": {"reward_weight": weights[number]}} if weights[number] else {}
        if number % 2:
            message = {"role": "user", "content": requests[number].prompt}
            answer = guided.post(
                "/v1/chat/completions", messages=[message], **options, **xargs
            )
        else:
            answer = guided.post(
                "/v1/completions", prompt=requests[number].prompt_ids, **options, **xargs
            )
        return answer["choices"][0]["token_ids"]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, range(32)))
    right = {weight: expected(root, "farma", chats, weight, NEW) for weight in WEIGHTS}
    assert found == [
        right[weight][request.id] for request, weight in zip(requests, weights, strict=True)
    ]


def test_bad_values_are_the_clients_fault(guided):
    for value in ("much", [1.0]):
        with pytest.raises(urllib.error.HTTPError) as caught:
            guided.post("/v1/completions", prompt="a", vllm_xargs={"reward_weight": value})
        assert caught.value.code == 400
        assert "'reward_weight' must be a finite number" in caught.value.read().decode()
    assert guided.post("/v1/completions", prompt="a", max_tokens=2)["choices"]


def test_classification_endpoint_gives_the_rewards(servers, root):
    texts = [request.prompt for request in make_requests(8)]
    rows = [character_tokenizer().encode(text) for text in texts]
    right = list(Scorer.load(root / "args").score_ids([[]] * len(rows), rows))
    answer = servers[1].post("/classify", input=texts, use_activation=False)
    assert [one["probs"][0] for one in answer["data"]] == pytest.approx(right, abs=1e-4)
    answer = servers[1].post("/pooling", input=texts, task="classify", use_activation=False)
    assert [one["data"][0] for one in answer["data"]] == pytest.approx(right, abs=1e-4)
