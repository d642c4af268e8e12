"""What a server refuses, how it says so, and what it does not write down."""

import json
import logging
import socket
import threading

import httpx
import pytest

from rewardsteer.serving.models import ServedModels
from tests.serving.running import KEY, client, make_service, running, wait_until

SECRET = "Zebra-Marmalade"


def held(service):
    """A lock that holds the models' thread up before its next step of decoding."""
    gate = threading.Event()
    engine = service.served.engine
    forward = engine.policy.forward

    def waits(*args, **options):
        assert gate.wait(30)
        return forward(*args, **options)

    engine.policy.forward = waits
    return gate


@pytest.mark.parametrize(("body", "param", "message"), [
    ({"prompt": "a", "max_tokens": 2000}, "max_tokens", "at most 1024"),
    ({"prompt": "a" * 500, "max_tokens": 20}, "max_tokens", "500 tokens and 20 more"),
    ({"prompt": "a" * 512, "max_tokens": -1}, "prompt",
     "has 512 tokens, and the models read at most 512, so no room is left"),
    ({"prompt": "a", "n": 65}, "n",
     "for 65 responses (prompts: 1, drawn for each: 65); a request may have 64"),
    ({"prompt": ["a"] * 33, "n": 2}, "n", "a request may have 64"),
    ({"prompt": [1, 2, 9999]}, "prompt", "got 9999"),
    ({"prompt": "a", "top_k": 500}, "top_k", "exceeds the policy's vocabulary"),
    ({"prompt": "a", "wieght": 1.0}, "wieght", "no field 'wieght'. Did you mean 'weight'?"),
    ({"prompt": "a", "top_p": 1.5}, "top_p", "at most 1"),
    ({"prompt": "a", "logprobs": 30}, "logprobs", "at most 20"),
    ({"prompt": "a", "temperature": -1}, "temperature", "expected at least 0, got -1"),
    ({"prompt": "a", "method": "args"}, None, "needs a reward model with a scalar head"),
    ({"prompt": "a", "method": "goal_filter"}, None, "needs a goal state"),
    ({"prompt": "a", "weight_schedule": "linear"}, None, "A weight_schedule (linear or cosine)"),
    ({"prompt": "a", "gate": "entropy", "gate_share": 0.5, "gate_threshold": 1}, None, "got both."),
    ({"prompt": "a", "method": "zzz"}, "method", "Unknown decoding method 'zzz'"),
    ({"prompt": "a", "model": "tiny@zzz_4"}, "model", "Unknown decoding method 'zzz'"),
    ({"prompt": "a", "model": "tiny@best_of_0"}, "n", "n: expected at least 1, got 0."),
    ({"prompt": "a", "model": "tiny@farma_4"}, "model",
     "'farma' does not draw a number of responses; ask for the model 'tiny@farma'."),
    ({"prompt": "a", "method": "beam", "method_settings": {"beam": 0}}, "method_settings.beam",
     "method_settings.beam: expected at least 1, got 0."),
    ({"prompt": "a", "model": "tiny@best_of_4", "method_settings": {"n": 2}}, "n",
     "method_settings has n = 2, but the request says 4; leave out one of the two."),
    ({"prompt": "a", "method": "best_of_n", "best_of": 3, "method_settings": {"n": 2}}, "n",
     "method_settings has n = 2, but the request says 3"),
    ({"prompt": "a", "best_of": 3}, "best_of", "is for the method 'best_of_n'"),
    ({"prompt": "a", "method": "best_of_n", "n": 2}, "n", "gives one response"),
    ({"prompt": "a", "stop": ["x"] * 17}, "stop", "16 stop strings"),
    ({"prompt": "\ud800"}, None, "Unicode text"),
    ({"prompt": []}, "prompt", "at least 1"),
    ({}, "prompt", "required"),
])
def test_bad_requests(address, body, param, message):
    reply = httpx.post(f"{address}/v1/completions", content=json.dumps(body),
                       headers={"Content-Type": "application/json"}, timeout=60)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert message in error["message"]
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(("content", "message"), [
    ("", "The body is empty; expected a JSON object."),
    ("[" * 20_000, "The body is not valid JSON: it is nested too deeply"),
    ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "or a number is too long."),
    ("{", "The body is not valid JSON: Expecting property name"),
    ("null", "The body: expected an object, got null."),
])
def test_bodies_that_are_no_requests(address, content, message):
    reply = httpx.post(f"{address}/v1/completions", content=content,
                       headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]


def test_an_infinite_weight_is_refused(address):
    reply = httpx.post(f"{address}/v1/completions", content='{"prompt": "a", "weight": NaN}',
                       headers={"Content-Type": "application/json"})
    assert reply.status_code == 400


def test_a_full_queue_says_when_to_come_again(folder):
    service = make_service(folder, places=2, queue=3)
    gate = held(service)
    with running(service) as (address, _), client(address) as http:
        body = {"prompt": "a", "max_tokens": 4}
        replies = []
        threads = [threading.Thread(
            target=lambda: replies.append(http.post("/v1/completions", json=body))
        ) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.worker.busy + service.worker.waiting == 5)
        refused = http.post("/v1/completions", json=body)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "queue_full"
        gate.set()
        for thread in threads:
            thread.join(30)
        assert [reply.status_code for reply in replies] == [200] * 5
        assert http.post("/v1/completions", json=body).status_code == 200
        figures = http.get("/metrics").text
        assert 'rewardsteer_requests_total{route="/v1/completions",status="429"} 1.0' in figures
        assert 'rewardsteer_requests_total{route="/v1/completions",status="200"} 6.0' in figures
        assert "rewardsteer_tokens_generated_total" in figures


def test_a_request_that_takes_too_long_is_given_up(folder):
    service = make_service(folder, seconds=0.3)
    gate = held(service)
    with running(service) as (address, _), client(address) as http:
        reply = http.post("/v1/completions", json={"prompt": "a"})
        assert reply.status_code == 504
        assert reply.json()["error"]["code"] == "timeout"
        streamed = http.post("/v1/completions", json={"prompt": "a", "stream": True})
        assert json.loads(streamed.text.splitlines()[-2][6:])["error"]["code"] == "timeout"
        gate.set()
        wait_until(lambda: service.worker.busy == 0)
        assert service.worker.waiting == 0


def test_a_large_body_is_refused_unread(folder):
    service = make_service(folder, max_body_bytes=1000)
    with running(service) as (address, _):
        reply = httpx.post(f"{address}/v1/completions", json={"prompt": "a" * 2000})
        assert reply.status_code == 413

        def parts():
            for _ in range(20):
                yield b"a" * 100

        reply = httpx.post(f"{address}/v1/completions", content=parts(),
                           headers={"Content-Type": "application/json"})
        assert reply.status_code == 413


def test_a_body_that_never_comes_is_given_up(folder):
    service = make_service(folder, body_seconds=0.2)
    with running(service) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
            assert b" 408 " in connection.recv(1000).split(b"\r\n")[0]


def test_only_json_is_taken(address):
    reply = httpx.post(f"{address}/v1/completions", content='{"prompt": "a"}',
                       headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415


def test_the_key_is_asked_for(folder):
    service = make_service(folder)
    with running(service, key=KEY) as (address, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"},
                        {"Authorization": f"Bearer {KEY}x"}):
            for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models"),
                                 ("GET", "/metrics"), ("POST", "/get_reward"), ("GET", "/nowhere"),
                                 ("GET", "/openapi.json")):
                reply = httpx.request(method, address + path, headers=headers)
                assert reply.status_code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
                assert reply.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
        with client(address, KEY) as http:
            assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200


def test_a_foreign_name_is_not_answered(folder):
    """A web page elsewhere may point a name of its own at this machine."""
    service = make_service(folder)
    with running(service, hosts={"localhost", "127.0.0.1", "::1"}) as (address, _):
        for host, status in (("127.0.0.1:8000", 200), ("LOCALHOST", 200), ("[::1]:80", 200),
                             ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403)):
            assert httpx.get(f"{address}/healthz", headers={"Host": host}).status_code == status


def test_nothing_of_users_is_logged(folder, monkeypatch, caplog):
    """Neither texts nor paths, not when a request is refused and not when the server fails."""
    service = make_service(folder)
    caplog.set_level(logging.DEBUG)
    with running(service) as (address, _), client(address) as http:
        turns = [{"role": "user", "content": SECRET}]
        http.post("/v1/completions", json={"prompt": SECRET, "user": SECRET})
        http.post("/v1/completions", json={"prompt": SECRET, "stream": True, "stop": SECRET})
        http.post("/v1/completions", json={"prompt": SECRET, SECRET: 1})
        http.post("/v1/completions", json={"prompt": SECRET, "model": SECRET})
        http.post("/v1/completions", json={"prompt": SECRET, "method": SECRET})
        http.post("/v1/chat/completions", json={"messages": [{"role": SECRET, "content": "a"}]})
        http.post("/v1/chat/completions", json={"messages": turns})
        http.post("/v1/rewards", json={"input": [{"prompt": SECRET, "completion": SECRET}]})
        http.post("/get_reward", json={"query": [SECRET], SECRET: SECRET})
        http.get(f"/{SECRET}?{SECRET}={SECRET}")
        http.request(SECRET.upper(), f"/v1/models/{SECRET}")

        def fails(*args, **options):
            raise RuntimeError(f"cannot read {SECRET}")

        monkeypatch.setattr(ServedModels, "encode_raw", fails)
        broken = http.post("/v1/completions", json={"prompt": SECRET})
        monkeypatch.undo()
        service.served.engine.policy.forward = fails
        lost = http.post("/v1/completions", json={"prompt": SECRET})
    for reply in (broken, lost):
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "internal_error"
        assert SECRET not in reply.text
    told = "\n".join(
        logging.Formatter().format(record) for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    )
    assert SECRET.lower() not in told.lower()
    assert "POST /v1/completions 200" in told
    assert "GET other 404" in told
    assert "RuntimeError at " in told


def test_a_lane_that_failed_does_not_stay(folder):
    service = make_service(folder)
    forward = service.served.engine.policy.forward
    with running(service) as (address, _), client(address) as http:
        def fails(*args, **options):
            raise RuntimeError("no")

        service.served.engine.policy.forward = fails
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 500
        service.served.engine.policy.forward = forward
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200
        assert service.worker.busy == 0
