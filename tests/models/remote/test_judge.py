"""Scores by a judge behind an address, against a small server."""

import math
import re

import numpy as np
import pytest

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.remote.judge import JudgeScorer
from tests.evaluation.test_judge import Server, says

PROMPTS = [f"What is {n}+1?" for n in range(6)]
COMPLETIONS = ["good", "fine", "bad $prompt", "so so", "good good", "{braces}"]


@pytest.fixture
def ask():
    pytest.importorskip("openai")
    return lambda server, **options: JudgeScorer(server.url, "referee", **options)


def judged(question):
    return re.search(r"<response>\n(.*?)\n</response>", question, re.S)[1]


def with_logprobs(text, tokens, tops):
    """An answer with the log-probabilities of its tokens."""
    status, body = says(text)
    content = [
        {"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": [
            {"token": other, "logprob": math.log(share), "bytes": None}
            for other, share in top.items()
        ]} for token, top in zip(tokens, tops, strict=True)
    ]
    body["choices"][0]["logprobs"] = {"content": content}
    return status, body


def test_expected_scores_over_the_digits(ask):
    def reply(question, _):
        if "Say yes" in question:
            return says("Yes.")
        best = 8 if "good" in judged(question) else 3
        top = {f" {best}": 0.6, f" {best - 1}": 0.3, " 10": 0.05, " x": 0.05}
        return with_logprobs(f"Score: {best}", ["Score", ":", f" {best}"], [{}, {}, top])

    with Server(reply) as server:
        scorer = ask(server)
        found = scorer.score(PROMPTS, COMPLETIONS)
    good, bad = (8 * 0.6 + 7 * 0.3) / 0.9, (3 * 0.6 + 2 * 0.3) / 0.9
    np.testing.assert_allclose(found, [good, bad, bad, bad, good, bad], atol=1e-12)
    assert server.bodies[-1]["logprobs"] is True
    assert server.bodies[-1]["top_logprobs"] == 20
    assert server.bodies[-1]["temperature"] == 0
    assert scorer.provenance()["expected_scores"] == 6
    assert any("bad $prompt" in question for question in server.questions)
    assert any("{braces}" in question for question in server.questions)


def test_the_number_where_there_are_no_logprobs(ask, caplog):
    answers = {"good": "**Score:** 9", "fine": "7.", "bad $prompt": "Score: 2/9\n",
               "so so": "<think>Score: 8?</think>\nscore: 4", "good good": "Score: 5.5",
               "{braces}": "SCORE = 1"}
    with Server(lambda question, _: says(answers.get(judged(question) if "<response>" in question
                                                    else "", "Yes."))) as server:
        scorer = ask(server)
        found = scorer.score(PROMPTS, COMPLETIONS)
    assert found.tolist() == [9, 7, 2, 4, 5.5, 1]
    assert sum("no log-probabilities" in line for line in caplog.messages) == 1
    assert scorer.provenance()["written_scores"] == 6


def test_a_server_that_refuses_logprobs_is_asked_without(ask, caplog):
    def reply(question, _):
        return says("Score: 6")

    with Server(reply) as server:
        inner = server.http.RequestHandlerClass.send

        def send(handler, status, content):
            if "logprobs" in server.bodies[-1]:
                status, content = 400, {"error": {"message": "logprobs are not supported",
                                                  "param": "logprobs"}}
            inner(handler, status, content)

        server.http.RequestHandlerClass.send = send
        scorer = ask(server, concurrency=1)
        assert scorer.score(PROMPTS[:2], COMPLETIONS[:2]).tolist() == [6, 6]
        assert "logprobs" not in server.bodies[-1]
        assert "temperature" in server.bodies[-1]
    assert "refuses logprobs" in caplog.text


def test_answers_without_a_score(ask):
    def reply(question, _):
        bad = "<response>" in question and judged(question) == "bad $prompt"
        return says("I like it, 12 of 20. Score: 12" if bad else "Score: 3")

    with Server(reply) as server:
        with pytest.raises(DataError, match=r"Row 3: .* no score \(its answer was 'I like it"):
            ask(server).score(PROMPTS, COMPLETIONS)
        found = ask(server, without_score=-1.0).score(PROMPTS, COMPLETIONS)
        assert found.tolist() == [3, 3, -1, 3, 3, 3]


def test_a_row_without_a_score_costs_no_second_question(ask):
    def reply(question, _):
        return says("No." if judged(question) == "bad $prompt" else "Score: 3")

    with Server(reply) as server:
        found = ask(server, check=False).score_each(PROMPTS, COMPLETIONS)
        assert set(server.questions.values()) == {1}
    assert [one for one in found if not isinstance(one, DataError)] == [3] * 5
    assert str(found[2]).startswith("Row 3: the judge referee gave no score (its answer was 'No.')")


def test_a_password_in_the_address_is_not_told(ask):
    with Server(lambda *_: says("Score: 3")) as server:
        url = server.url.replace("http://", "http://me:secret@")
        judge = JudgeScorer(url, "referee", check=False)
    assert "secret" not in judge.name + str(judge.provenance())



def test_unfinished_responses_conversations_and_own_prompts(ask):
    with Server(lambda *_: says("Score: 3")) as server:
        scorer = ask(server)
        scorer.score(["a"], ["b"], closed=False)
        assert sum("unfinished" in question for question in server.questions) == 1
        scorer.score([[{"role": "user", "content": "Who?"}]], ["Me"])
        assert any("<prompt>\nuser: Who?\n</prompt>" in one for one in server.questions)
        own = ask(server, prompt="P $prompt R $response: Score: N", scale=(0, 5))
        own.score(["a"], ["b"])
        assert "P a R b: Score: N" in server.questions
        steps = scorer.step_scores(["a"], [["one", "two"]])
        assert steps[0].tolist() == [3, 3]


@pytest.mark.parametrize(("options", "message"), [
    ({"scale": (1, 10)}, r"one digit to a higher one.*\(1, 10\)"),
    ({"scale": (5, 5)}, "one digit"),
    ({"prompt": "Score $response"}, r"needs \$prompt and \$response"),
    ({"prompt": "$prompt $response $rubric"}, r"\$rubric"),
])
def test_settings_that_cannot_be_used(options, message):
    with pytest.raises(ConfigError, match=message):
        JudgeScorer("http://127.0.0.1:1/v1", "referee", **options)


def test_a_wrong_address_shows_at_once():
    pytest.importorskip("openai")
    with pytest.raises(ConfigError, match=r"cannot be reached \(.*it ends in /v1; .* referee"):
        JudgeScorer("http://127.0.0.1:1/v1", "referee")
