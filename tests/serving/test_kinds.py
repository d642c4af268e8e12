"""Reward models of any kind behind our server, and clients of other servers at our address."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import DataError
from rewardsteer.models.implicit import ImplicitScorer
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.remote.scorer import RemoteScorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Message
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests import process_models
from tests.fakes import character_tokenizer, tiny_causal_lm
from tests.models.remote.reward_server import RewardServer
from tests.serving.running import client, make_service, running

PROMPTS = ["What is 7+8?", "a", "Who?"]
COMPLETIONS = ["15", "It is so.", "Nobody at all, I think"]
TEMPLATE = Template(kind="text", prompt="Q: {prompt}\nA:", response=" {response}")


class Words(TextScorer):
    """Reads texts alone: the reward is a number made from the letters."""

    name = "words"
    fingerprint = "abc"

    def __init__(self):
        self.calls = []

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        self.calls.append((len(prompts), batch_size))
        if any("#" in text for text in completions):
            raise DataError("Row 1 cannot be read.")
        if any("!!" in text for text in completions):
            raise RuntimeError("a shape")
        return np.array([value(p, c, closed) for p, c in zip(prompts, completions, strict=True)])


def value(prompt, completion, closed=True):
    talk = prompt if isinstance(prompt, str) else "".join(turn.content for turn in prompt)
    return sum(map(ord, completion)) / 100 - len(talk) + closed / 2


def serve(scorer, **limits):
    config = ServingConfig(**{"places": 4, "seconds": 60.0, **limits})
    return Service(ServedModels(
        None, None, scorer, DecodingConfig(method="none"), config, reward_name="rm"
    ), config)


@pytest.fixture(scope="module")
def address():
    with running(serve(Words())) as (address, _):
        yield address


def post(address, path, status=200, **body):
    reply = httpx.post(address + path, json=body, timeout=60)
    assert reply.status_code == status, reply.text
    return reply.json()


def items(prompts=PROMPTS, completions=COMPLETIONS):
    return [{"prompt": p, "completion": c} for p, c in zip(prompts, completions, strict=True)]


def test_rewards_of_texts(address):
    expected = [value(p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    found = post(address, "/v1/rewards", input=items())
    assert [one["reward"] for one in found["data"]] == pytest.approx(expected)
    assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 15}  # four characters a token
    open_ = post(address, "/v1/rewards", input=items(), closed=False)
    assert [one["reward"] for one in open_["data"]] == pytest.approx(
        [one - 0.5 for one in expected]
    )
    talk = [{"role": "user", "content": "Who?"}]
    found = post(address, "/v1/rewards", input=[{"prompt": talk, "completion": "Me"}])
    assert found["data"][0]["reward"] == pytest.approx(value("Who?", "Me"))
    [model] = httpx.get(f"{address}/v1/models").json()["data"]
    assert (model["id"], model["kind"], model["fingerprint"]) == ("rm", "reward", "abc")


def test_steps(address):
    steps = [["one", "two", "three"], ["all"]]
    found = post(address, "/v1/rewards", input=[
        {"prompt": "a", "steps": own} for own in steps
    ])["data"]
    assert found[0]["step_rewards"] == pytest.approx([
        value("a", "one", False), value("a", "one\n\ntwo", False),
        value("a", "one\n\ntwo\n\nthree"),
    ])
    assert found[0]["reward"] == pytest.approx(value("a", "one\n\ntwo\n\nthree"))
    assert found[1]["step_rewards"] == pytest.approx([value("a", "all")])


def test_pairs_and_conversations(address):
    expected = [value(p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    found = post(address, "/score", text_1=PROMPTS, text_2=COMPLETIONS)
    assert [one["score"] for one in found["data"]] == pytest.approx(expected)
    ranked = post(address, "/v1/rerank", query="a", documents=["x", "z", "y"])["results"]
    assert [one["index"] for one in ranked] == [1, 2, 0]
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]
    found = post(address, "/classify", messages=turns)
    assert found["data"][0]["probs"] == pytest.approx([value("Who?", "Me")])
    trl = post(address, "/get_reward", prompts=PROMPTS, completions=COMPLETIONS)
    assert trl["rewards"] == pytest.approx(expected)
    queries = [p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    openrlhf = post(address, "/get_reward", query=queries, prompts=PROMPTS, labels=["", "", ""])
    assert openrlhf["rewards"] == pytest.approx(expected)


@pytest.mark.parametrize(("path", "body", "message"), [
    ("/classify", {"input": ["written"]}, "cannot score written texts; use /v1/rewards"),
    ("/classify", {"input": [[1, 2]]}, "cannot score token ids; use /v1/rewards"),
    ("/get_reward", {"query": ["written"]}, "or to /get_reward prompts with completions"),
    ("/v1/rewards", {"input": items(), "per_token": True}, "gives no rewards of tokens"),
    ("/v1/rewards", {"input": items(), "goal": "x"}, "this server has: none"),
    ("/v1/rewards", {"input": items(["a"], ["b" * 17000])}, "takes at most 4096"),
    ("/v1/rewards", {"input": items(["a" * 40000], ["b"])}, "40000 characters"),
    ("/v1/rewards", {"input": items(["a"], ["#"])}, "cannot be read"),
])
def test_bad_requests(address, path, body, message):
    assert message in post(address, path, 400, **body)["error"]["message"]


def test_one_request_harms_no_other():
    scorer = Words()
    with running(serve(scorer)) as (address, _), client(address) as http, \
            ThreadPoolExecutor(12) as pool:
        texts = ["#" if i == 3 else "!!" if i == 7 else f"text {i}" for i in range(12)]
        replies = list(pool.map(
            lambda text: http.post("/v1/rewards", json={"input": items(["p"], [text])}), texts
        ))
    codes = [reply.status_code for reply in replies]
    assert codes == [400 if i == 3 else 500 if i == 7 else 200 for i in range(12)]
    for text, reply in zip(texts, replies, strict=True):
        if reply.status_code == 200:
            assert reply.json()["data"][0]["reward"] == pytest.approx(value("p", text))


def test_refusals_name_models_and_no_folders():
    scorer = Words()
    scorer.name, scorer.tokenizer = "/home/me/words", character_tokenizer()
    policy, tokenizer = tiny_causal_lm(vocab_size=len(scorer.tokenizer)), character_tokenizer()
    tokenizer.name_or_path = scorer.tokenizer.name_or_path = "/home/me/llama"
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    limits = ServingConfig()
    served = ServedModels(
        policy, tokenizer, scorer, DecodingConfig(method="best_of_n"), limits, name="llama",
        reward_name="rm",
    )
    served.rename()
    user = {"role": "user", "content": "a"}
    called = {"role": "assistant", "tool_calls": [{
        "id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"},
    }]}
    with running(Service(served, limits)) as (address, _):
        for path, body, message in (
            ("completions", {"prompt": "a", "method": "args", "top_k": 2}, "but rm "),
            ("chat/completions", {"messages": [user, called, user]}, "template of llama"),
        ):
            found = post(address, f"/v1/{path}", 400, **body)["error"]["message"]
            assert message in found
            assert "/home" not in found


def test_long_texts_are_few_a_batch():
    scorer = Words()
    with running(serve(scorer, reward_tokens=100)) as (address, _):
        post(address, "/v1/rewards", input=items(["p"] * 6, ["x" * 100] * 6))
    assert sum(rows for rows, _ in scorer.calls) == 6
    assert all(rows * 26 <= 100 and size <= 4 for rows, size in scorer.calls)


def test_implicit_rewards_are_served_with_those_of_tokens():
    models = [tiny_causal_lm(vocab_size=len(character_tokenizer()), seed=seed) for seed in (1, 2)]
    scorer = ImplicitScorer(*models, character_tokenizer(), TEMPLATE)
    with running(serve(scorer)) as (address, _):
        found = post(address, "/v1/rewards", input=items(), per_token=True)["data"]
        steps = post(address, "/v1/rewards", input=[{"prompt": "a", "steps": ["b", "c"]}])
        closed = post(address, "/v1/rewards", input=items(), closed=False)["data"]
        refused = post(address, "/classify", 400, input=["written"])
    for one, expected in zip(found, scorer.token_scores(PROMPTS, COMPLETIONS), strict=True):
        assert one["token_rewards"] == pytest.approx(list(expected.rewards), abs=1e-4)
        assert one["tokens"][-1] == "<eos>"
    expected = scorer.step_scores(["a"], [["b", "c"]])[0]
    assert steps["data"][0]["step_rewards"] == pytest.approx(list(expected), abs=1e-4)
    assert [one["reward"] for one in closed] == pytest.approx(
        list(scorer.score(PROMPTS, COMPLETIONS, closed=False)), abs=1e-4
    )
    assert "reads a prompt and its completion" in refused["error"]["message"]


def test_a_process_reward_model_is_served(tmp_path):
    """Values of steps, and their aggregate as the reward, also over the address."""
    scorer = load_scorer(
        process_models.save_trl(tmp_path / "prm"), kind="token_classification_prm", device="cpu"
    )
    steps = [["Step 1: 2+3 = 5.", "Step 2: so 5.", "Done."], ["Yes."]]
    with running(serve(scorer)) as (address, _):
        found = post(address, "/v1/rewards", input=[
            {"prompt": "Add.", "steps": own} for own in steps
        ])["data"]
        refused = post(address, "/v1/rewards", 400, input=items(), per_token=True)
        remote = RemoteScorer(address).step_scores(["Add."] * 2, steps)
    expected = scorer.step_scores(["Add."] * 2, steps)
    for one, own, away in zip(found, expected, remote, strict=True):
        assert one["step_rewards"] == pytest.approx(list(own), abs=1e-5)
        np.testing.assert_allclose(away, own, atol=1e-5)
    whole = scorer.score(["Add."] * 2, ["\n\n".join(own) for own in steps])
    assert [one["reward"] for one in found] == pytest.approx(list(whole), abs=1e-5)
    assert "send the completion as steps" in refused["error"]["message"]


@pytest.fixture(scope="module")
def tiny(folder):
    service = make_service(folder, head="scalar", with_policy=False, method="none",
                           template=TEMPLATE)
    with running(service) as (address, _):
        yield address, service.served.scorer


def test_a_remote_reward_model_is_the_one_that_is_served(tiny):
    address, scorer = tiny
    remote = RemoteScorer(address)
    assert remote.api == "rewardsteer"
    expected = scorer.score(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(remote.score(PROMPTS, COMPLETIONS, batch_size=2), expected,
                               atol=1e-5)
    ids = scorer.encode(PROMPTS, COMPLETIONS, closed=False)
    np.testing.assert_allclose(
        remote.score(PROMPTS, COMPLETIONS, closed=False), scorer.score_ids(*ids), atol=1e-5
    )
    steps = [["one", "two"], ["three"]]
    for found, right in zip(remote.step_scores(["a", "b"], steps),
                            scorer.step_scores(["a", "b"], steps), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)
    talk = [Message(role="user", content="Who?")]
    np.testing.assert_allclose(remote.score([talk], ["Me"]), scorer.score([talk], ["Me"]),
                               atol=1e-5)


@pytest.mark.parametrize("options", [
    {"api": "vllm"}, {"api": "vllm", "tokenizer": character_tokenizer(), "template": TEMPLATE},
    {"api": "vllm-pooling", "tokenizer": character_tokenizer(), "template": TEMPLATE},
    {"api": "openrlhf", "tokenizer": character_tokenizer(), "template": TEMPLATE},
], ids=["conversations", "classify", "pooling", "openrlhf"])
def test_clients_of_other_servers_change_the_address_alone(tiny, options):
    address, scorer = tiny
    if options["api"] == "openrlhf":
        address += "/get_reward"
    remote = RemoteScorer(address, **options)
    prompts = PROMPTS
    if "tokenizer" not in options:
        prompts = [[Message(role="user", content=prompt)] for prompt in PROMPTS]
    np.testing.assert_allclose(
        remote.score(PROMPTS, COMPLETIONS), scorer.score(prompts, COMPLETIONS), atol=1e-5
    )


def test_a_server_behind_a_server():
    with RewardServer("sglang", refuse=lambda n: {3: 400}.get(n)) as behind:
        scorer = RemoteScorer(behind.url, tokenizer=character_tokenizer(), template=TEMPLATE)
        with running(serve(scorer)) as (address, _):
            expected = scorer.score(PROMPTS, COMPLETIONS)
            refused = post(address, "/v1/rewards", 400, input=items())
            found = post(address, "/v1/rewards", input=items())
            behind.refuse = lambda n: 401
            failed = post(address, "/v1/rewards", 502, input=items())
    assert [one["reward"] for one in found["data"]] == pytest.approx(list(expected), abs=1e-9)
    assert "row too long" in refused["error"]["message"]
    assert failed["error"]["code"] == "upstream_error"
    assert behind.url not in str(failed)
