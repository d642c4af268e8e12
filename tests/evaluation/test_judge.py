"""Win rates by a language model, against a small server on the loopback address."""

import json
import re
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rewardsteer.addresses import RETRIES
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.judge import _WORKERS, Judgement, read_verdict, win_rates
from rewardsteer.evaluation.length_control import length_controlled
from rewardsteer.evaluation.pair_judge import PairJudge
from rewardsteer.evaluation.statistics import share
from rewardsteer.outputs import read_jsonl
from rewardsteer.records import EvalRecord, Generation

KEY = "sk-very-secret"


class Server:
    """Answers ``/v1/chat/completions`` as ``reply`` says.

    ``reply(question, times)`` gives a status and a body for the ``times``-th time that a question
    is asked.
    """

    def __init__(self, reply):
        self.questions, self.bodies, self.keys = Counter(), [], set()
        self.refuses_temperature = False
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = body["messages"][0]["content"]
                assert self.path == "/v1/chat/completions"
                with lock:
                    outer.questions[question] += 1
                    outer.bodies.append(body)
                    outer.keys.add(self.headers["Authorization"])
                    times = outer.questions[question]
                if outer.refuses_temperature and "temperature" in body:
                    self.send(400, {"error": {
                        "message": "Unsupported value: only the default (1) is supported.",
                        "param": "temperature", "code": "unsupported_value",
                    }})
                    return
                self.send(*reply(question, times))

            def send(self, status, content):
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.send_header("Retry-After-Ms", "1")
                self.end_headers()
                self.wfile.write(raw)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def says(text):
    return 200, {
        "id": "1", "object": "chat.completion", "created": 0, "model": "referee",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": text}}],
    }


def responses(question):
    return re.search(
        r"<response_a>\n(.*?)\n</response_a>.*<response_b>\n(.*?)\n</response_b>", question, re.S
    ).groups()


def prefers(question, wanted):
    first, second = responses(question)
    if (wanted in first) == (wanted in second):
        return says("Verdict: tie")
    return says(f"**Verdict:** {'A' if wanted in first else 'B'}.")


def records(method, texts):
    return [
        EvalRecord(generation=Generation(
            id=str(index), prompt=f"${{what}} {index}?", completion=text, method=method
        ))
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def ask(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("REFEREE_KEY", KEY)
    return lambda server: PairJudge(server.url, "referee", key_env="REFEREE_KEY")


def test_both_orders_show_a_judge_that_prefers_the_first(ask, tmp_path):
    base = records("none", [f"plain {number}" for number in range(14)])
    texts = ["plain 0", "plain 1"] + [f"good {i}" for i in range(3)] + [f"x {i}" for i in range(9)]

    def reply(question, _):
        return prefers(question, "good") if "good" in question else says("Verdict: A")

    with Server(reply) as server:
        judge = ask(server)
        table = {"none": base, "args": records("args", texts)}
        place = tmp_path / "judge.jsonl"
        figures = win_rates(judge, table, "none", place, both_orders=True)["args"]
        assert sum(server.questions.values()) == 24
        # The first order alone is among these.
        assert win_rates(judge, table, "none", place)["args"]["refused"] == 0
        assert sum(server.questions.values()) == 24
    # Three wins, two equal responses, nine pairs with a verdict for either.
    assert [figures[name] for name in ("wins", "ties", "losses")] == [3, 11, 0]
    values = [1.0] * 3 + [0.5] * 11
    assert figures["win_rate_low"] == pytest.approx(share(values).low)
    assert figures["consistent"] == pytest.approx(3 / 12)
    assert figures["first_wins"] == pytest.approx((3 + 18) / 24)


def test_wins_ties_and_losses_are_found_wherever_they_are_shown(ask, tmp_path):
    base = records("none", [f"plain {{first}} $second {i}" for i in range(20)])
    texts = [f"good {i}" for i in range(12)] + [r.generation.completion for r in base[12:15]]
    texts += [f"dull {i}" for i in range(3)] + ["bad", "bad"]

    def reply(question, _):
        first, _ = responses(question)
        if "bad" in question.split("<prompt>")[1]:
            return says(f"verdict: response {'b' if 'bad' in first else 'a'}")
        return prefers(question, "good")

    with Server(reply) as server:
        table = {"none": base, "farma": records("farma", texts)}
        rates = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl")
    # 12 good ones win; 3 are the same texts, which nobody is asked about, and 3 are judged ties.
    assert rates.keys() == {"farma"}
    figures = rates["farma"]
    assert [figures[name] for name in ("wins", "ties", "losses", "no_verdict")] == [12, 6, 2, 0]
    assert figures["win_rate"] == pytest.approx(15 / 20)
    interval = share([1.0] * 12 + [0.5] * 6 + [0.0] * 2)
    assert figures["win_rate_low"] == pytest.approx(interval.low)
    assert figures["win_rate_high"] == pytest.approx(interval.high)
    lengths = [[len(one.generation.completion) for one in rows] for rows in table.values()]
    controlled = length_controlled([1.0] * 12 + [0.5] * 6 + [0.0] * 2, lengths[1], lengths[0])
    assert figures["lc_win_rate"] == pytest.approx(controlled.value)
    assert figures["lc_win_rate_high"] == pytest.approx(controlled.high)
    assert sum(server.questions.values()) == 17
    asked = [Judgement.model_validate(row) for _, row in read_jsonl(tmp_path / "judge.jsonl")]
    assert [one.id for one in asked] == [str(i) for i in range(20) if not 12 <= i < 15]
    assert all(one.answer.lower().lstrip("*").startswith("verdict") for one in asked)
    assert 8 <= sum(one.baseline_first for one in asked) <= 9
    assert all(body["model"] == "referee" for body in server.bodies)
    # Texts that look like fields of the template come through as they are.
    assert any("${what} 3?" in question for question in server.questions)
    assert any("plain {first} $second 3" in question for question in server.questions)


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_judge_that_looks_at_the_position_alone_gives_one_half(ask, tmp_path, letter):
    table = {"none": records("none", "abcdefghij"), "x": records("x", "ABCDEFGHIJ"),
             "y": records("y", "KLMNOPQRST")}
    with Server(lambda *_: says(f"Verdict: {letter}")) as server:
        rates = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl")
    assert [rates[name]["win_rate"] for name in ("x", "y")] == [0.5, 0.5]
    first = {
        name: {row["id"] for _, row in read_jsonl(tmp_path / "judge.jsonl")
               if row["method"] == name and row["baseline_first"]}
        for name in ("x", "y")
    }
    assert first["x"] != first["y"]  # a draw of their own, so no prompt always has one order


def test_garbage_is_kept_and_counted_apart(ask, tmp_path):
    texts = [f"good {i}" for i in range(8)]
    odd = {
        "good 0": says("I cannot decide."), "good 1": says(None),
        "good 4": (400, {"error": {"message": "too long"}}),
    }

    def reply(question, _):
        name = next(text for text in responses(question) if text.startswith("good"))
        return odd.get(name) or prefers(question, "good")

    table = {"none": records("none", ["-"] * 8), "x": records("x", texts)}
    with Server(reply) as server:
        [figures] = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl").values()
    assert [figures[name] for name in ("wins", "ties", "losses", "no_verdict")] == [5, 0, 0, 1]
    assert figures["refused"] == 2
    assert figures["win_rate"] == 1
    kept = {row["id"]: row for _, row in read_jsonl(tmp_path / "judge.jsonl")}
    assert kept["0"]["answer"] == "I cannot decide."
    assert kept["0"]["verdict"] is None
    # A failure is no result: it stands as one, and resume asks again.
    assert "empty answer" in kept["1"]["refused"]
    assert "too long" in kept["4"]["refused"]
    assert [kept[i]["answer"] for i in "14"] == [""] * 2


@pytest.mark.parametrize(("reply", "message"), [
    ((200, {"hello": 1}), "no chat completion.*hello"), ((200, {"choices": []}), "no chat complet"),
    ((200, b"no json"), "no chat completion: no json"),
    ((200, {"error": {"message": "out of credit", "code": 402}}), "does not work.*out of credit"),
    ((200, {"error": "worker died"}), "does not work.*worker died"),
])
def test_a_reply_that_is_no_answer_ends_the_run(ask, tmp_path, reply, message):
    place = tmp_path / "judge.jsonl"
    table = {"none": records("none", "ab"), "x": records("x", ["good a", "good b"])}
    with (
        Server(lambda question, _: reply if "good b" in question else prefers(question, "good")) as
        server, pytest.raises(ConfigError, match=message),
    ):
        win_rates(ask(server), table, "none", place)
    assert len(list(read_jsonl(place))) == 1


def test_only_garbage_gives_no_rate(ask, tmp_path):
    table = {"none": records("none", "ab"), "x": records("x", "cd")}
    with Server(lambda *_: says("Verdict: A or B")) as server:
        [figures] = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl").values()
    assert figures == {"wins": 0, "ties": 0, "losses": 0, "no_verdict": 2, "refused": 0}


def test_resume_asks_what_is_missing(ask, tmp_path):
    place = tmp_path / "judge.jsonl"
    table = {"none": records("none", "abcdef"), "x": records("x", [f"good {i}" for i in "abcdef"])}

    def reply(question, times):
        if "good b" in question and times == 1:
            return 400, {"error": {"message": "not now"}}
        return prefers(question, "good")

    with Server(reply) as server:
        first = win_rates(ask(server), table, "none", place)
        assert first["x"]["refused"] == 1
        lines = place.read_text().splitlines(keepends=True)
        place.write_text("".join(lines[:4]) + lines[4][:30])
        again = win_rates(ask(server), table, "none", place)
        assert again["x"]["wins"] == 6
        # The refused one and the two that were lost.
        assert sorted(server.questions.values()) == [1, 1, 1, 2, 2, 2]
        win_rates(PairJudge(server.url, "other"), table, "none", place)
        assert sum(server.questions.values()) == 9 + 6  # another judge is another opinion
    place.write_text('{"id": 3}\n')
    with pytest.raises(DataError, match="no judgement"):
        win_rates(ask(server), table, "none", place)


def test_busy_and_failing_servers_are_asked_again(ask, tmp_path):
    table = {"none": records("none", "abcd"), "x": records("x", [f"good {i}" for i in "abcd"])}
    troubles = {1: 429, 2: 503, 3: 500}

    def reply(question, times):
        if times in troubles:
            return troubles[times], {"error": {"message": "busy"}}
        return prefers(question, "good")

    with Server(reply) as server:
        [figures] = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl").values()
    assert figures["wins"] == 4
    assert set(server.questions.values()) == {4}


def test_a_server_that_fails_for_good_stops_with_what_was_judged(ask, tmp_path):
    table = {"none": records("none", "abcdefghij"),
             "x": records("x", [f"good {i}" for i in "abcdefghij"])}

    def reply(question, _):
        if "good h" in question:
            return 500, {"error": {"message": "on fire"}}
        return prefers(question, "good")

    with Server(reply) as server:
        with pytest.raises(ConfigError, match=r"does not work.*on fire.*is kept") as stopped:
            win_rates(ask(server), table, "none", tmp_path / "judge.jsonl")
        assert max(server.questions.values()) == 1 + RETRIES
    assert KEY not in str(stopped.value)
    assert len(list(read_jsonl(tmp_path / "judge.jsonl"))) == 7


def test_the_key_goes_to_the_server_and_nowhere_else(ask, tmp_path, caplog):
    caplog.set_level("DEBUG")
    table = {"none": records("none", "ab"), "x": records("x", "cd")}
    with Server(lambda *_: says("Verdict: tie")) as server:
        win_rates(ask(server), table, "none", tmp_path / "judge.jsonl")
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in (tmp_path / "judge.jsonl").read_text()
    assert KEY not in caplog.text


def test_what_cannot_work_shows_before_anything_is_generated(ask):
    with Server(lambda *_: says("Yes.")) as server:
        url = server.url
        ask(server).check()
        assert sum(server.questions.values()) == 1
    with pytest.raises(ConfigError, match=re.escape(url) + " cannot be reached.*/v1"):
        PairJudge(url, "referee").check()
    for status, content, words in (
        (401, {"error": {"message": f"wrong key {KEY}"}}, "REFEREE_KEY"),
        (404, {"error": {"message": "no such model"}}, "no such model.*referee"),
        (400, {"error": {"message": "no temperature here"}}, "no temperature here"),
        (200, {"error": {"message": "out of credit"}}, "out of credit"),
        (200, b"<html>", "no chat completion"),
        (200, {"models": []}, "no chat completion"),
    ):
        with Server(lambda *_, reply=(status, content): reply) as server:
            with pytest.raises(ConfigError, match=words) as refused:
                ask(server).check()
            assert KEY not in str(refused.value)


def test_the_package_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"rewardsteer\[judge\]"):
        PairJudge("http://127.0.0.1:1/v1", "referee")


@pytest.mark.parametrize(("answer", "expected"), [
    ("Verdict: A", "A"), ("verdict: b.", "B"), ("**Verdict:** TIE", "tie"),
    ("Verdict: A\nNo, wait.\nVerdict: B", "B"), ("Verdict:\n\"A\"", "A"),
    ("<think>Verdict: A</think>\nVerdict: tie", "tie"), ("Verdict: Response B", "B"),
    ("Verdict: A or B", None), ("Verdict: a tie", None), ("A", None), ("", None),
    ("Verdict:\n\nA response that helps is B", None), ("My verdict: undecided", None),
])
def test_verdicts(answer, expected):
    shown = {"A": "loss", "B": "win", "tie": "tie", None: None}
    swapped = {"A": "win", "B": "loss", "tie": "tie", None: None}
    assert read_verdict(answer, baseline_first=True) == shown[expected]
    assert read_verdict(answer, baseline_first=False) == swapped[expected]


def test_a_judge_that_refuses_temperature_0_is_asked_without_it(ask, tmp_path, caplog):
    texts = [f"good {i}" for i in range(20)]
    table = {"none": records("none", ["-"] * 20), "x": records("x", texts)}
    with Server(lambda question, _: prefers(question, "good")) as server:
        server.refuses_temperature = True
        judge = ask(server)
        [figures] = win_rates(judge, table, "none", tmp_path / "judge.jsonl").values()
    assert (figures["wins"], figures["refused"]) == (20, 0)
    assert sum("refuses temperature 0" in line for line in caplog.messages) == 1
    # Those that were under way together may each find out; later ones know.
    assert sum("temperature" in body for body in server.bodies) <= _WORKERS


def test_an_error_with_status_200_is_asked_again(ask, tmp_path):
    table = {"none": records("none", "ab"), "x": records("x", ["good a", "good b"])}

    def reply(question, times):
        if times == 1:
            return 200, {"error": {"message": "upstream overloaded", "code": 502}}
        return prefers(question, "good")

    with Server(reply) as server:
        figures = win_rates(ask(server), table, "none", tmp_path / "judge.jsonl")["x"]
    assert (figures["wins"], figures["refused"]) == (2, 0)
