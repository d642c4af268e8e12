"""What one client can take from the others: texts, connections, the inspector, memory."""

import asyncio
import json
import logging
import socket
import threading
import time

import httpx
import pytest

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Admission, Bounds
from rewardsteer.models import reading
from rewardsteer.serving.errors import ApiError
from rewardsteer.serving.protocol import LoopTrouble, connections_allowed
from rewardsteer.serving.reach import bind
from rewardsteer.serving.threads import TextStage
from tests.serving.running import client, make_service, offline, running, wait_until


def test_long_texts_are_refused_untokenized(folder):
    service = make_service(folder, max_prompt_tokens=100)
    asked = []
    plain = service.served.engine.tokenizer

    class Counting:
        def __getattr__(self, name):
            return getattr(plain, name)

        def __call__(self, texts, **options):
            asked.append(texts)
            return plain(texts, **options)

    service.served.engine.tokenizer = Counting()
    with running(service) as (address, _), client(address) as http:
        most = service.served.most_characters
        assert most == 100 * 8
        for path, body in (
            ("/v1/completions", {"prompt": "a" * (most + 1)}),
            ("/v1/completions", {"prompt": ["a", "a" * (most + 1)]}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * most + "b"}]}),
            ("/v1/rewards", {"input": [{"prompt": "a" * (most + 1), "completion": "b"}]}),
            ("/get_reward", {"query": ["a" * (most + 1)]}),
            ("/v1/inspect", {"prompt": "a" * (most + 1)}),
            ("/tokenize", {"prompt": "a" * (most + 1)}),
        ):
            reply = http.post(path, json=body)
            assert reply.status_code == 400, path
            error = reply.json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert "characters" in error["message"]
        assert not asked
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).is_success


def test_a_short_text_does_not_wait_behind_long_ones(folder):
    service = make_service(folder, max_prompt_tokens=100_000)
    gate = threading.Event()
    encode = service.served.encode_raw

    def slow(prompt, name="0"):
        if len(prompt) > 20_000:
            assert gate.wait(30)
        return encode(prompt, name)

    service.served.encode_raw = slow
    with running(service) as (address, _), client(address) as http:
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(
            http.post("/v1/completions", json={"prompt": "a" * 30_000}).status_code
        )) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.texts.waiting == 3)
        reply = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, timeout=10)
        assert reply.status_code == 200
        assert "rewardsteer_texts_waiting 3.0" in http.get("/metrics").text
        gate.set()
        for thread in threads:
            thread.join(30)
    assert replies == [400] * 3


def test_tokenizing_is_counted_and_timed(folder):
    service = make_service(folder, seconds=2.0, places=1, queue=1)
    gate = threading.Event()
    encode = service.served.encode_raw

    def stuck(prompt, name="0"):
        assert gate.wait(30)
        return encode(prompt, name)

    service.served.encode_raw = stuck
    with running(service) as (address, _), client(address) as http:
        body = {"prompt": "a", "max_tokens": 1}
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(
            http.post("/v1/completions", json=body).status_code
        )) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.texts.waiting == 2)
        assert http.post("/v1/completions", json=body).status_code == 429
        for thread in threads:
            thread.join(30)
        assert replies == [504] * 2
        gate.set()
        service.served.encode_raw = encode
        wait_until(lambda: http.post("/v1/completions", json=body).status_code == 200)


def test_what_waited_too_long_is_not_begun():
    """It would hold up those who still wait."""
    asyncio.run(wait_in_line(TextStage(8)))


async def wait_in_line(stage):
    gate, begun = threading.Event(), []

    def first():
        assert gate.wait(30)

    running_first = asyncio.create_task(stage.run(first, characters=1, seconds=20, of=20))
    await asyncio.sleep(0.05)
    with pytest.raises(ApiError):
        await stage.run(lambda: begun.append(1), characters=1, seconds=0.05, of=0.05)
    gate.set()
    await running_first
    await stage.run(lambda: None, characters=1, seconds=20, of=20)
    assert not begun
    stage.close()


# --- connections ----------------------------------------------------------------------------------


def half_open(address, count):
    host, port = address.removeprefix("http://").split(":")
    found = []
    for _ in range(count):
        one = socket.create_connection((host, int(port)), timeout=10)
        one.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX")
        found.append(one)
    return found


def closed(connection):
    connection.settimeout(10)
    try:
        while connection.recv(1000):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_headers_that_do_not_come(folder):
    service = make_service(folder, header_seconds=0.3)
    with running(service) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        silent = socket.create_connection((host, int(port)), timeout=10)
        for one in [silent, *half_open(address, 2)]:
            began = time.monotonic()
            assert closed(one)
            assert time.monotonic() - began < 5
        # After an answer too, once the next headers have begun.
        again = socket.create_connection((host, int(port)), timeout=10)
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in again.recv(2000)
        again.sendall(b"GET /healthz HTTP/1.1\r\nX")
        assert closed(again)


def test_half_open_connections_keep_nobody_out(folder):
    service = make_service(folder, connections=8)
    with running(service) as (address, _):
        slow = half_open(address, 40)
        for _ in range(3):
            assert httpx.get(f"{address}/healthz", timeout=5).status_code == 200
        reply = httpx.post(f"{address}/v1/completions", json={"prompt": "a", "max_tokens": 2},
                           timeout=20)
        assert reply.status_code == 200
        # The oldest had to go.
        assert closed(slow[0])
        for one in slow:
            one.close()


def test_busy_connections_are_not_closed_for_new_ones(folder):
    service = make_service(folder, method="none", connections=2)
    service.served.engine.stop_ids = frozenset()
    with running(service) as (address, _), client(address) as http:
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(
            http.post("/v1/completions", json={"prompt": "a", "max_tokens": 400})
        )) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.worker.busy == 2)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/healthz", timeout=5)
        for thread in threads:
            thread.join(60)
        assert [reply.status_code for reply in replies] == [200] * 2


def test_files_are_left_for_the_rest():
    assert connections_allowed(1) == 1
    assert 1 <= connections_allowed(10**9) <= 10**9


def test_troubles_of_the_loop_fill_no_log(caplog):
    caplog.set_level(logging.ERROR)
    handler = LoopTrouble()
    for _ in range(1000):
        handler(None, {"message": "socket.accept() out of system resource",
                       "exception": OSError(24, "Too many open files")})
    assert len(caplog.records) == 1
    handler(None, {"message": "another", "exception": ValueError("x")})
    assert len(caplog.records) == 2


def test_ports_are_numbers_of_ports():
    for port in (-1, 65536, 99999):
        with pytest.raises(ValueError, match="from 0 to 65535"):
            bind("127.0.0.1", port)


# --- models ---------------------------------------------------------------------------------------


def test_padded_scoring_stays_within_its_tokens(folder, monkeypatch):
    """A long completion beside many short ones, of one request or of several."""
    service = make_service(folder, reward_tokens=1000)
    shapes = []
    plain = reading._read

    def spy(model, rows, ids, *more, **options):
        shapes.append(tuple(ids.shape))
        return plain(model, rows, ids, *more, **options)

    monkeypatch.setattr(reading, "_read", spy)
    items = [{"prompt": "q", "completion": "x" * 400}] + [
        {"prompt": "ab"[number % 2], "completion": "y"} for number in range(100)
    ]
    with running(service) as (address, _):
        for per_token in (False, True):
            reply = httpx.post(f"{address}/v1/rewards", timeout=60,
                               json={"input": items, "per_token": per_token})
            assert reply.status_code == 200
    assert shapes
    assert all(rows * columns <= 1000 for rows, columns in shapes), shapes
    right = service.served.scorer.score([one["prompt"] for one in items],
                                        [one["completion"] for one in items])
    assert [one["reward"] for one in reply.json()["data"]] == pytest.approx(list(right), abs=1e-4)


def test_inspections_take_turns_with_decoding(folder):
    service = make_service(folder, inspect_queue=2)
    with running(service) as (address, _), client(address) as http:
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).is_success
        results = []
        threads = [threading.Thread(target=lambda: results.append(
            http.post("/v1/inspect", json={"prompt": "a", "completion": "b" * 250}).status_code
        )) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.worker.waiting_calls == 2)
        assert http.post("/v1/inspect",
                         json={"prompt": "a", "completion": "b"}).status_code == 429
        reply = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
        assert reply.status_code == 200
        # Answered between two tokens of what was still being inspected.
        assert not results
        for thread in threads:
            thread.join(60)
        assert results == [200] * 2


def test_an_inspection_ends_with_its_client(folder):
    service = make_service(folder)
    with running(service) as (address, _), client(address) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/inspect", json={"prompt": "a", "completion": "b" * 250}, timeout=0.1)
        wait_until(lambda: service.worker.waiting_calls == 0, seconds=0.7)
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).is_success


class Waiting:
    """A row that waits."""

    def __init__(self, longest, guide="none"):
        self.prompt_ids, self.token_ids, self.guide = [1], [], guide
        self.config = DecodingConfig(max_new_tokens=longest - 1)


def filled(rows, **bounds):
    admission = Admission(Bounds(**bounds))
    for row in rows:
        admission.put(row)
    return admission


def taken(admission, working=()):
    return admission.take(list(working))


def test_rows_enter_within_the_caches():
    rows = [Waiting(60), Waiting(30), Waiting(30), Waiting(500), Waiting(5)]
    admission = filled(rows, places=8, cache_tokens=100)
    assert taken(admission) == rows[:2]
    # In their order: a small one does not overtake.
    assert taken(admission, rows[:1]) == rows[2:3]
    assert not taken(admission, rows[2:3])
    # One that is larger than all there is goes alone.
    assert taken(admission) == rows[3:4]
    assert taken(admission) == rows[4:]


def test_methods_at_a_time_are_bounded():
    rows = [Waiting(2, "a"), Waiting(2, "b"), Waiting(2, "c"), Waiting(2, "a")]
    admission = filled(rows, places=8, guides=2)
    assert taken(admission) == rows[:2]
    assert taken(admission, rows[:1]) == rows[2:]


def test_memory_that_ran_out_lets_fewer_rows_in():
    admission = filled([Waiting(2) for _ in range(64)], places=16)
    admission.too_many(16)
    assert len(taken(admission)) == 8
    for _ in range(64):
        admission.went_well()
    assert len(taken(admission)) == 16


def test_rows_of_weight_nothing_ask_no_reward_model(folder):
    service = make_service(folder)
    with running(service) as (address, _):
        reply = httpx.post(f"{address}/v1/completions", timeout=60, json={
            "prompt": "Who?", "weight": 0, "seed": 3, "max_tokens": 16
        })
    [choice] = reply.json()["choices"]
    [right] = offline(service, ["Who?"], seed=3, weight=0.0)
    assert choice["text"] == right.completion
    assert choice["guidance"]["method"] == "farma"
    assert choice["guidance"]["cost"]["rm_calls"] == 0


def test_a_stream_that_makes_progress_is_not_cut(folder):
    service = make_service(folder, method="none", seconds=1.5)
    service.served.engine.stop_ids = frozenset()
    policy = service.served.engine.policy
    forward = policy.forward
    policy.lm_head.bias.data[:3] = -1e4

    def slow(*args, **options):
        time.sleep(0.06)
        return forward(*args, **options)

    with running(service) as (address, _):
        body = {"prompt": "a", "max_tokens": 40}
        # What is tried once of a model is not part of the time.
        assert httpx.post(f"{address}/v1/completions", json={"prompt": "a"}).is_success
        policy.forward = slow
        streamed = httpx.post(f"{address}/v1/completions", json=body | {"stream": True}, timeout=60)
        whole = httpx.post(f"{address}/v1/completions", json=body, timeout=60)
    assert streamed.text.endswith("data: [DONE]\n\n")
    events = [line for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert json.loads(events[-1][6:])["choices"][0]["finish_reason"] == "length"
    assert whole.status_code == 504


def test_ending_does_not_wait_for_ever(folder, monkeypatch):
    monkeypatch.setattr("rewardsteer.serving.worker._CLOSING_SECONDS", 0.2)
    service = make_service(folder, method="none")
    gate = threading.Event()
    forward = service.served.engine.policy.forward

    def stuck(*args, **options):
        assert gate.wait(30)
        return forward(*args, **options)

    service.served.engine.policy.forward = stuck
    with running(service) as (address, _), pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/completions", json={"prompt": "a"}, timeout=0.3)
    began = time.monotonic()
    service.worker.close()
    assert time.monotonic() - began < 5
    gate.set()


def test_an_idle_server_reads_as_many_texts_as_it_has_room_for(folder):
    service = make_service(folder, places=2, queue=3)
    held_up = threading.Event()

    async def many():
        runs = [asyncio.create_task(service.texts.run(
            lambda: held_up.wait(30), characters=1, seconds=30.0, of=30.0)) for _ in range(5)]
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError, match="as many requests"):
            await service.texts.run(lambda: None, characters=1, seconds=30.0, of=30.0)
        held_up.set()
        return await asyncio.gather(*runs)

    assert asyncio.run(many()) == [True] * 5
    service.texts.close()
