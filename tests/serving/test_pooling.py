"""The forms in which vLLM's, Infinity's and OpenRLHF's servers are asked for rewards."""

import math

import httpx
import pytest

from rewardsteer.records import Message
from tests.serving.running import make_service, running

PROMPTS = ["What is 7+8?", "a", "Who?"]
COMPLETIONS = ["15", "It is so.", "Nobody at all, I think"]
WRITTEN = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.fixture(scope="module")
def service(folder):
    return make_service(folder, head="scalar", with_policy=False, method="none")


@pytest.fixture(scope="module")
def address(service):
    with running(service) as (address, _):
        yield address


@pytest.fixture(scope="module")
def right(service):
    return [float(one) for one in service.served.scorer.score(PROMPTS, COMPLETIONS)]


def post(address, path, **body):
    reply = httpx.post(address + path, json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def near(values):
    return pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("name", ["query", "queries", "messages", "input", "inputs", "texts"])
@pytest.mark.parametrize("path", ["/get_reward", "/v1/score/evaluation"])
def test_queries_under_any_name(address, right, name, path):
    assert post(address, path, model="model", **{name: WRITTEN})["rewards"] == near(right)


def test_pooling(address, right):
    found = post(address, "/pooling", model="tiny-reward", input=WRITTEN)
    assert [one["data"][0] for one in found["data"]] == near(right)
    assert found["object"] == "list"
    assert found["data"][2]["index"] == 2
    assert post(address, "/v1/pooling", input=WRITTEN[0])["data"][0]["data"] == near(right[:1])


def test_pooling_of_a_conversation(address, service):
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]
    found = post(address, "/pooling", messages=turns, task=None)
    expected = service.served.scorer.score([[Message(role="user", content="Who?")]], ["Me"])
    assert found["data"][0]["data"] == near(list(expected))
    reply = httpx.post(f"{address}/pooling", json={"messages": turns[:1] * 2})
    assert reply.status_code == 400
    assert "'assistant'" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/classify", "/v1/classify", "/pooling", "/score", "/rerank"])
def test_activation_is_none_unless_asked_for_and_told(address, right, path):
    body = {"/score": {"text_1": PROMPTS, "text_2": COMPLETIONS},
            "/rerank": {"query": PROMPTS[0], "documents": COMPLETIONS[:1]}}.get(
                path, {"input": WRITTEN})

    def numbers(reply):
        if path == "/rerank":
            return [one["relevance_score"] for one in reply["results"]]
        return [one["score"] if path == "/score" else one[
            "data" if path == "/pooling" else "probs"][0] for one in reply["data"]]

    expected = right[:1] if path == "/rerank" else right
    for given in ({}, {"use_activation": False}, {"use_activation": None}):
        found = post(address, path, **body, **given)
        assert numbers(found) == near(expected)
        assert found["activation"] == "none"
    found = post(address, path, **body, use_activation=True)
    assert numbers(found) == near([1 / (1 + math.exp(-one)) for one in expected])
    assert found["activation"] == "sigmoid"


def test_classify_as_vllm(address, right, service):
    found = post(address, "/classify", input=WRITTEN)
    assert found["data"][0] | {"probs": None} == {
        "index": 0, "label": "LABEL_0", "probs": None, "num_classes": 1
    }
    scorer = service.served.scorer
    rows = [[*p, *r] for p, r in zip(*scorer.encode(PROMPTS, COMPLETIONS), strict=True)]
    by_ids = post(address, "/classify", input=rows, add_special_tokens=False)
    assert [one["probs"][0] for one in by_ids["data"]] == near(right)
    assert post(address, "/pooling", input=rows[0])["data"][0]["data"] == near(right[:1])
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]
    prompt = [[Message(role="user", content="Who?")]]
    for closed in (True, False):
        talk = post(address, "/classify", messages=turns, add_generation_prompt=False,
                    continue_final_message=not closed)
        expected = scorer.score_ids(*scorer.encode(prompt, ["Me"], closed=closed))
        assert talk["data"][0]["probs"] == near(list(expected))


def test_classify_as_infinity(address, right):
    found = post(address, "/classify", input=WRITTEN, raw_scores=True)
    assert [row[0]["score"] for row in found["data"]] == near(right)
    assert found["object"] == "classify"
    shaped = post(address, "/classify", input=WRITTEN, raw_scores=False)
    assert [row[0]["score"] for row in shaped["data"]] == near(
        [1 / (1 + math.exp(-one)) for one in right]
    )


@pytest.mark.parametrize(("path", "names"), [
    ("/score", ("text_1", "text_2")), ("/v1/score", ("queries", "documents")),
])
def test_score(address, right, path, names):
    first, second = names
    found = post(address, path, **{first: PROMPTS, second: COMPLETIONS})
    assert [one["score"] for one in found["data"]] == near(right)
    one = post(address, path, **{first: PROMPTS[0], second: COMPLETIONS[:1]})
    assert one["data"][0]["score"] == near(right[0])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank(address, service, path):
    found = post(address, path, query=PROMPTS[0], documents=[*COMPLETIONS[:2], {"text": "x"}],
                 top_n=2)
    values = list(service.served.scorer.score(PROMPTS[:1] * 3, [*COMPLETIONS[:2], "x"]))
    order = sorted(range(3), key=lambda index: -values[index])[:2]
    assert [one["index"] for one in found["results"]] == order
    assert [one["relevance_score"] for one in found["results"]] == near(
        [values[index] for index in order]
    )
    assert found["results"][0]["document"]["text"] in (*COMPLETIONS, "x")


@pytest.mark.parametrize(("path", "body", "message"), [
    ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "got 2 and 1"),
    ("/score", {"text_1": "a"}, "required"),
    ("/rerank", {"query": "a", "documents": []}, "at least 1"),
    ("/rerank", {"query": "a", "documents": ["b"], "truncate_prompt_tokens": 5}, "read whole"),
    ("/classify", {}, "either 'input' or 'messages'"),
    ("/classify", {"input": [[1, 99999]]}, "holds the token id 99999"),
    ("/v1/rewards", {"input": [{"prompt": "a"}]}, "either 'completion' or 'steps'"),
    ("/v1/rewards", {"input": [{"prompt": "a", "steps": []}]}, "at least 1"),
    ("/v1/rewards", {"input": [{"prompt": "a", "steps": ["b"]},
                               {"prompt": "a", "completion": "b"}]}, "every item or in none"),
    ("/v1/rewards", {"input": [{"prompt": "a", "steps": ["b"]}], "per_token": True},
     "two requests"),
    ("/v1/rewards", {"input": [{"prompt": "a", "completion": "b"}], "closed": False,
                     "per_token": True}, "that have ended"),
    ("/get_reward", {"query": ["", "hello"]}, "Text 0 is empty"),
    ("/v1/rewards", {"input": [{"prompt": "", "completion": ""}]}, "both empty"),
    ("/score", {"text_1": "", "text_2": ""}, "both empty"),
])
def test_bad_requests(address, path, body, message):
    reply = httpx.post(address + path, json=body, timeout=60)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["error"]["message"]


def test_an_empty_completion_has_the_reward_of_its_end(address, service):
    found = post(address, "/v1/rewards", input=[{"prompt": "hello", "completion": ""}])
    [right] = service.served.scorer.score(["hello"], [""])
    assert found["data"][0]["reward"] == near(float(right))


def test_one_request_that_cannot_be_scored(address, service):
    """Others that are scored with it get their rewards."""
    from concurrent.futures import ThreadPoolExecutor

    mark = service.served.scorer.tokenizer.convert_tokens_to_ids("#")
    backbone = service.served.scorer.reward_model.backbone
    forward = backbone.forward

    def breaks(*args, **options):
        ids = options.get("input_ids", args[0] if args else None)
        if ids is not None and bool((ids == mark).any()):
            raise RuntimeError("a shape")
        return forward(*args, **options)

    backbone.forward = breaks
    try:
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda index: httpx.post(
                f"{address}/get_reward", timeout=60,
                json={"query": ["#" if index == 2 else "fine"]},
            ).status_code, range(6)))
    finally:
        backbone.forward = forward
    assert replies == [200, 200, 500, 200, 200, 200]
