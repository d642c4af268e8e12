"""A server's numbers are compared, and what it does to texts or rewards is named."""

import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.doctor.examination import examine
from rewardsteer.models.kinds import load_scorer
from tests.chat import save_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("served") / "m", "llama3")


@pytest.fixture(scope="module")
def scorer(folder):
    return load_scorer(folder, device="cpu")


@contextmanager
def vllm(number):
    """A server of vLLM's form; ``number(messages)`` is what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self._answer({"data": [{"id": "rm", "owned_by": "vllm"}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer({"data": [{"index": 0, "probs": [number(asked["messages"])]}]})

        def _answer(self, value):
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def reward(scorer, messages):
    return float(scorer.score([messages[:-1]], [messages[-1]["content"]])[0])


def read(scorer, text, *, special):
    ids = scorer.tokenizer(text, add_special_tokens=special)["input_ids"]
    return float(scorer.score_ids([[]], [ids])[0])


def finding(diagnosis):
    [found] = [one for one in diagnosis.findings if one.check == "address"]
    return found


def test_a_server_that_gives_the_rewards(folder, scorer):
    with vllm(lambda messages: reward(scorer, messages)) as url:
        diagnosis = examine(folder, device="cpu", url=url)
    assert finding(diagnosis).status == "ok"
    assert diagnosis.healthy


SERVERS = {
    "sigmoid": lambda scorer, messages: 1 / (1 + math.exp(-reward(scorer, messages))),
    "softmax": lambda scorer, messages: 1.0,
    "template missing": lambda scorer, messages: read(
        scorer, "\n".join(turn["content"] for turn in messages), special=True
    ),
    "double BOS": lambda scorer, messages: read(
        scorer, scorer.tokenizer.apply_chat_template(messages, tokenize=False), special=True
    ),
    "one token early": lambda scorer, messages: read(
        scorer, scorer.tokenizer.apply_chat_template(messages, tokenize=False).removesuffix(
            "<|eot_id|>"
        ), special=False,
    ),
}


@pytest.mark.parametrize("cause", SERVERS)
def test_the_cause_of_other_numbers(folder, scorer, cause):
    with vllm(lambda messages: SERVERS[cause](scorer, messages)) as url:
        found = finding(examine(folder, device="cpu", url=url))
    assert found.status == "fault"
    assert found.figures["cause"] == cause


def test_no_server_and_the_exit_status(folder):
    result = CliRunner().invoke(app, [
        "doctor", str(folder), "--device", "cpu", "--url", "http://127.0.0.1:9",
    ])
    assert result.exit_code == 1
    assert "FAULT  address: http://127.0.0.1:9 gives no rewards" in result.stdout
