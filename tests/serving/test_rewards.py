"""Rewards over HTTP are the scorer's."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.records import Message
from tests.serving.running import client, make_service, running

PROMPTS = ["What is 7+8?", "a", "Who?", ""]
COMPLETIONS = ["15", "It is so.", "Nobody at all, I think", "x"]
INPUT = [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.fixture(scope="module")
def service(folder):
    vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    goals = {"mean": GoalState("mean", vectors, Provenance(kind="mean", model_fingerprint=""))}
    return make_service(folder, head="scalar", with_policy=False, method="none", goals=goals,
                        template=Template(turns={"user": "U: {content}", "assistant": "A: "
                                                 "{content}"}))


@pytest.fixture(scope="module")
def address(service):
    with running(service) as (address, _):
        yield address


def post(address, path, **body):
    return httpx.post(address + path, json=body, timeout=60)


def test_sequence_rewards(service, address):
    found = post(address, "/v1/rewards", input=INPUT).json()
    right = service.served.scorer.score(PROMPTS, COMPLETIONS)
    assert [one["reward"] for one in found["data"]] == pytest.approx(list(right), abs=1e-5)
    assert [one["index"] for one in found["data"]] == [0, 1, 2, 3]
    assert "token_rewards" not in found["data"][0] or found["data"][0]["token_rewards"] is None
    assert found["usage"]["prompt_tokens"] == sum(map(len, PROMPTS))


def test_token_rewards_and_similarities(service, address):
    reply = post(address, "/v1/rewards", input=INPUT, per_token=True, goal="mean")
    right = service.served.scorer.token_scores(
        PROMPTS, COMPLETIONS, goal=service.served.goals["mean"]
    )
    for one, scores in zip(reply.json()["data"], right, strict=True):
        assert one["token_rewards"] == pytest.approx(list(scores.rewards), abs=1e-5)
        assert one["token_similarities"] == pytest.approx(list(scores.similarities), abs=1e-5)
        assert one["similarity"] == pytest.approx(scores.similarities[-1], abs=1e-5)
        assert one["reward"] == one["token_rewards"][-1]
        assert len(one["tokens"]) == len(one["token_rewards"])
    assert reply.json()["data"][0]["tokens"] == ["1", "5", "<eos>"]


def test_many_clients_at_once(service, address):
    right = service.served.scorer.score(PROMPTS, COMPLETIONS)
    with client(address) as http, ThreadPoolExecutor(16) as pool:
        def ask(index):
            some = [INPUT[index % 4], INPUT[(index + 1) % 4]]
            body = {"input": some, "per_token": index % 3 == 0}
            return [one["reward"] for one in http.post("/v1/rewards", json=body).json()["data"]]
        for index, found in enumerate(pool.map(ask, range(48))):
            expected = [right[index % 4], right[(index + 1) % 4]]
            assert found == pytest.approx(expected, abs=1e-4)


def test_openrlhf_queries(service, address):
    """Prompt and completion as one text, with paddings and end-of-text or without."""
    right = list(service.served.scorer.score(PROMPTS, COMPLETIONS))
    queries = [p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    queries[1] = "<pad><pad>" + queries[1] + "<eos><pad>"
    plain = post(address, "/get_reward", query=queries)
    assert plain.json()["rewards"] == pytest.approx(right, abs=1e-5)
    queries[1] = queries[1].removeprefix("<pad><pad>")
    newer = post(address, "/get_reward", query=queries, prompts=PROMPTS, labels=["", "", "", ""])
    assert newer.json()["rewards"] == newer.json()["scores"] == pytest.approx(right, abs=1e-5)


def test_queries_of_autoregressive_models_know_their_prompts(folder):
    """There the reward is a sum over the completion's tokens."""
    service = make_service(folder, objective="autoregressive", method="genarm")
    with running(service) as (address, _):
        queries = [p + c for p, c in zip(PROMPTS[:3], COMPLETIONS[:3], strict=True)]
        found = post(address, "/get_reward", query=queries, prompts=PROMPTS[:3]).json()["rewards"]
    assert found == pytest.approx(
        list(service.served.scorer.score(PROMPTS[:3], COMPLETIONS[:3])), abs=1e-4
    )


def test_trl_columns(service, address):
    right = list(service.served.scorer.score(PROMPTS, COMPLETIONS))
    found = post(address, "/get_reward", prompts=PROMPTS, completions=COMPLETIONS,
                 answer=["15"] * 4)
    assert found.json()["rewards"] == pytest.approx(right, abs=1e-5)
    turns = [{"role": "user", "content": "Who?"}]
    talk = post(address, "/get_reward", prompts=[turns],
                completions=[[{"role": "assistant", "content": "Me"}]])
    right = service.served.scorer.score([[Message(role="user", content="Who?")]], ["Me"])
    assert talk.json()["rewards"] == pytest.approx(list(right), abs=1e-5)


def test_completions_of_messages(service, address):
    """They are read with the prompt up to the last one, which is judged."""
    user, answer = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}
    more = [answer, user, answer]
    right = [
        service.served.scorer.score([[Message(**one) for one in before]], ["Me"])[0]
        for before in ([user], [user, answer, user])
    ]
    found = post(address, "/v1/rewards", input=[
        {"prompt": [user], "completion": [answer]}, {"prompt": [user], "completion": more},
    ])
    assert [one["reward"] for one in found.json()["data"]] == pytest.approx(right, abs=1e-5)
    trl = post(address, "/get_reward", prompts=[[user]] * 2, completions=[[answer], more])
    assert trl.json()["rewards"] == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize(("path", "body", "message"), [
    ("/v1/rewards", {"input": []}, "at least 1"),
    ("/v1/rewards", {"input": [
        {"prompt": "a", "completion": [{"role": "user", "content": "b"}]},
    ]}, "input.0: expected an assistant's message at the end of completion"),
    ("/get_reward", {"prompts": [[]], "completions": ["b"]}, "an empty list"),
    ("/v1/rewards", {"input": INPUT, "goal": "other"}, "this server has: mean"),
    ("/v1/rewards", {"input": [{"prompt": "a" * 600, "completion": "b"}]}, "at most 512"),
    ("/v1/rewards", {"input": INPUT * 200}, "may have 512 completions, got 800"),
    ("/get_reward", {"query": ["a"], "completions": ["b"], "prompts": ["c"]}, "either 'query'"),
    ("/get_reward", {"completions": ["b"]}, "come with their 'prompts'"),
    ("/get_reward", {"query": ["a"], "prompts": ["a", "b"]}, "got 2 and 1"),
    ("/get_reward", {"prompts": [[{"role": "odd", "content": "a"}]], "completions": ["b"]},
     "no format for the role 'odd'"),
])
def test_bad_requests(address, path, body, message):
    reply = post(address, path, **body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_without_a_policy_there_is_nothing_to_complete(address):
    reply = post(address, "/v1/completions", prompt="a")
    assert reply.status_code == 404
    models = httpx.get(f"{address}/v1/models").json()["data"]
    assert [(one["id"], one["kind"], one["goals"]) for one in models] == [
        ("tiny-reward", "reward", ["mean"])
    ]


def test_one_damaged_row_is_not_the_others(service, address):
    """A reward that is no number fails the request that asked, and it alone."""
    head = service.served.scorer.reward_model.head
    plain = type(head).sequence_rewards

    def damaged(self, hidden, ids, last):
        values = plain(self, hidden, ids, last)
        return torch.where((ids == ids[0, 0] * 0 + 28).any(dim=1), torch.nan, values)

    type(head).sequence_rewards = damaged
    try:
        marked = service.served.scorer.tokenizer.decode([28])
        bodies = [{"input": [{"prompt": "Who?", "completion": marked if i == 3 else "9"}]}
                  for i in range(8)]
        with client(address) as http, ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda body: http.post("/v1/rewards", json=body), bodies))
    finally:
        type(head).sequence_rewards = plain
    assert [reply.status_code for reply in replies] == [200, 200, 200, 500, 200, 200, 200, 200]
    assert "expected a finite number" in replies[3].json()["error"]["message"]
