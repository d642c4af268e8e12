"""Reward models behind an address, against servers of the published forms."""

from functools import partial

import numpy as np
import pytest

from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError, DataError, MismatchError, NonFiniteError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.remote.judge import JudgeScorer
from rewardsteer.models.remote.scorer import RemoteScorer
from tests.models.remote.reward_server import TOKENIZER, RewardServer, reward_of

PROMPTS = ["What is 7+8?", "a", "Who?", "zz", "b"]
COMPLETIONS = ["15", "It is so.", "Nobody at all, I think", "x", "y z"]
TEMPLATE = Template(kind="text", prompt="Q: {prompt}\nA:", response=" {response}")
PLAIN = Template(kind="text", append_eos=False)


def rows(closed=True):
    end = [TOKENIZER.eos_token_id] if closed else []
    return [
        TOKENIZER.encode(f"Q: {p}\nA: {c}") + end
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]


def expected(closed=True):
    return np.array([reward_of(row) for row in rows(closed)])


@pytest.mark.parametrize(("kind", "api"), [
    ("vllm", "auto"), ("vllm", "vllm-pooling"), ("sglang", "auto"), ("openrlhf", "openrlhf"),
    ("openrlhf", "auto"),
])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_raw_rewards_in_the_order_given(kind, api, batch_size):
    with RewardServer(kind) as server:
        url = server.url + ("/get_reward" if kind == "openrlhf" else "")
        scorer = RemoteScorer(url, api=api, tokenizer=TOKENIZER, template=TEMPLATE)
        found = scorer.score(PROMPTS, COMPLETIONS, batch_size=batch_size)
        np.testing.assert_allclose(found, expected(), atol=1e-9)
        open_ = scorer.score(PROMPTS, COMPLETIONS, batch_size=batch_size, closed=False)
        np.testing.assert_allclose(open_, expected(closed=False), atol=1e-9)
    assert found.dtype == np.float64
    assert scorer.provenance()["activation"] == "none"
    assert scorer.provenance()["template"]["prompt"] == "Q: {prompt}\nA:"


def test_requests_have_the_published_fields():
    with RewardServer("vllm") as server:
        RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE).score(["a"], ["b"])
        path, body = server.asked[-1]
        assert path == "/classify"
        assert body == {"model": "rm", "use_activation": False,
                        "input": [[*TOKENIZER.encode("Q: a\nA: b"), TOKENIZER.eos_token_id]]}
        RemoteScorer(server.url + "/v1").score(["a"], ["b"])
        assert server.asked[-1][1] == {
            "model": "rm", "use_activation": False, "add_generation_prompt": False,
            "continue_final_message": False, "messages": [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            ],
        }
        scorer = RemoteScorer(server.url, template=PLAIN, fields={"priority": 3})
        assert scorer.score(["a"], ["b"]) == pytest.approx([reward_of(TOKENIZER.encode("ab"))])
        assert server.asked[-1][1] == {
            "model": "rm", "use_activation": False, "input": ["ab"], "priority": 3
        }
    with RewardServer("sglang") as server:
        RemoteScorer(server.url, template=PLAIN).score(["a"], ["b"])
        assert server.asked[-1] == ("/classify", {"model": "rm", "text": ["ab"]})
    with RewardServer("openrlhf") as server:
        RemoteScorer(server.url + "/get_reward", tokenizer=TOKENIZER, template=TEMPLATE).score(
            ["a"], ["b"]
        )
        assert server.asked[-1] == ("/get_reward", {
            "query": ["Q: a\nA: b<eos>"], "prompts": ["Q: a\nA:"], "labels": [""],
        })


def test_conversations_by_the_servers_own_template():
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    with RewardServer("vllm") as server:
        scorer = RemoteScorer(server.url)
        found = scorer.score([talk, "a"], ["Me", "b"], batch_size=8)
        open_ = scorer.score([talk], ["Me"], closed=False)
    written = "system: Be kind.\nuser: Who?\nassistant: Me"
    assert found == pytest.approx([
        reward_of(TOKENIZER.encode(written + "\n")),
        reward_of(TOKENIZER.encode("user: a\nassistant: b\n")),
    ])
    assert open_ == pytest.approx([reward_of(TOKENIZER.encode(written))])
    assert scorer.provenance()["template"] == "the server's"


def test_step_scores_are_rewards_of_prefixes():
    steps = [["one", "two", "3"], ["all"]]
    with RewardServer("sglang") as server:
        scorer = RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        found = scorer.step_scores(["a", "b"], steps)
    texts = ["Q: a\nA: one", "Q: a\nA: one\n\ntwo", "Q: a\nA: one\n\ntwo\n\n3"]
    ids = [TOKENIZER.encode(text) for text in texts]
    ids[-1].append(TOKENIZER.eos_token_id)
    assert found[0] == pytest.approx([reward_of(one) for one in ids])
    assert found[1] == pytest.approx([
        reward_of([*TOKENIZER.encode("Q: b\nA: all"), TOKENIZER.eos_token_id])
    ])


def small(ids):
    """Rewards that a sigmoid does not lose."""
    return reward_of(ids) / 10


def test_a_sigmoid_is_undone_or_refused():
    with RewardServer("vllm", ignores_activation=True, reward=small) as server:
        with pytest.raises(MismatchError, match=r"use_activation.*activation='sigmoid'"):
            RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        scorer = RemoteScorer(
            server.url, tokenizer=TOKENIZER, template=TEMPLATE, activation="sigmoid"
        )
        found = scorer.score(PROMPTS, COMPLETIONS)
        np.testing.assert_allclose(found, expected() / 10, atol=1e-9)
        assert scorer.provenance()["activation"] == "sigmoid, undone"
        as_it_is = RemoteScorer(
            server.url, tokenizer=TOKENIZER, template=TEMPLATE, activation="none"
        ).score(PROMPTS, COMPLETIONS)
        np.testing.assert_allclose(as_it_is, 1 / (1 + np.exp(-expected() / 10)), atol=1e-9)
    with RewardServer("vllm", ignores_activation=True, reward=lambda ids: 80.0) as server:
        scorer = RemoteScorer(
            server.url, tokenizer=TOKENIZER, template=TEMPLATE, activation="sigmoid"
        )
        with pytest.raises(DataError, match=r"Row 1: .* is 1; its sigmoid has lost"):
            scorer.score(PROMPTS, COMPLETIONS)
    # A model without any activation (problem_type regression) gives the same numbers either way.
    with RewardServer("vllm", raw=True) as server:
        scorer = RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        np.testing.assert_allclose(scorer.score(PROMPTS, COMPLETIONS), expected(), atol=1e-9)


def test_several_labels():
    with RewardServer("vllm", labels=5) as server:
        with pytest.raises(MismatchError, match=r"gives 5 numbers per row.*label="):
            RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        with pytest.raises(MismatchError, match="label=5 is none"):
            RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE, label=5)
        scorer = RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE, label=2)
        np.testing.assert_allclose(
            scorer.score(PROMPTS, COMPLETIONS), expected() + 2, atol=1e-9
        )
    with (
        RewardServer("vllm", labels=2, ignores_activation=True) as server,
        pytest.raises(MismatchError, match="applied a softmax"),
    ):
        RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE, label=0)
    with (
        RewardServer("sglang", labels=64) as server,
        pytest.raises(MismatchError, match="without its reward head"),
    ):
        RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)


@pytest.mark.parametrize("activation", ["auto", "none"])
@pytest.mark.parametrize("api", ["vllm", "vllm-pooling", "sglang"])
def test_a_hidden_state_is_no_reward_whatever_label_is_asked_for(api, activation):
    """As vLLM gives it of a causal language model, or of an architecture that it does not know."""
    def wide(ids):
        return [(place * token % 11 - 5) / 7 for place in range(8192) for token in ids[-1:]]

    def normalised(ids):
        state = np.array(wide(ids)[:64]) + 0.1
        return (state / np.linalg.norm(state)).tolist()

    for state, width in ((wide, 8192), (normalised, 64)):
        with (
            RewardServer(api.removesuffix("-pooling"), state=state) as server,
            pytest.raises(MismatchError, match=f"gives {width} numbers .* hidden state"),
        ):
            RemoteScorer(server.url, api=api, tokenizer=TOKENIZER, template=TEMPLATE, label=0,
                         activation=activation)


def test_sglangs_softmax_is_refused():
    with RewardServer("sglang", softmax=True) as server:
        with pytest.raises(MismatchError, match=r"1\.0 for every text"):
            RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        with pytest.raises(ConfigError, match="native /classify"):
            RemoteScorer(server.url + "/v1/classify", api="sglang", template=PLAIN)


def test_an_address_has_no_revision():
    with pytest.raises(ConfigError, match="is an address for the kind remote; leave them out"):
        load_scorer("http://127.0.0.1:1", revision="main")


def test_templates_that_need_a_tokenizer():
    with RewardServer("sglang") as server:
        with pytest.raises(ConfigError, match="tokenizer=FOLDER_OR_NAME"):
            RemoteScorer(server.url)
        with pytest.raises(ConfigError, match="append_eos=False"):
            RemoteScorer(server.url, template=TEMPLATE)


def test_busy_servers_are_asked_again_and_requests_are_few():
    with RewardServer("vllm", refuse=lambda n: 503 if n in (4, 6) else None,
                      seconds=0.02) as server:
        scorer = RemoteScorer(
            server.url, tokenizer=TOKENIZER, template=TEMPLATE, concurrency=3
        )
        found = scorer.score(PROMPTS * 4, COMPLETIONS * 4, batch_size=1)
        np.testing.assert_allclose(found, list(expected()) * 4, atol=1e-9)
        assert 2 <= server.most <= 3


def test_failures_are_one_sentence(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with RewardServer("vllm", refuse=lambda n: 400 if n > 1 else None) as server:
        scorer = RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE,
                              key_env="MY_KEY")
        assert server.keys == {"Bearer sk-very-secret"}
        with pytest.raises(DataError, match=r"One of the rows 1 to 2: .*row too long"):
            scorer.score(PROMPTS[:2], COMPLETIONS[:2], batch_size=2)
        with pytest.raises(DataError, match=r"Row 1: .* refuses it"):
            scorer.score(PROMPTS[:1], COMPLETIONS[:1], batch_size=2)
        with pytest.raises(DataError, match="one completion for each prompt"):
            scorer.score(PROMPTS, COMPLETIONS[:2])
    assert "sk-very-secret" not in str(scorer.provenance())
    with pytest.raises(ConfigError, match=r"cannot be reached.*check the address"):
        RemoteScorer(server.url)
    with (
        RewardServer("openrlhf", refuse=lambda n: 401) as server,
        pytest.raises(ConfigError, match=r"refuses the key.*MY_KEY"),
    ):
        RemoteScorer(server.url + "/get_reward", key_env="MY_KEY", template=PLAIN)
    with (
        RewardServer("openrlhf") as server,
        pytest.raises(ConfigError, match="does not say what it is; pass api="),
    ):
        RemoteScorer(server.url)
    with (
        RewardServer("vllm", nan_at=1) as server,
        pytest.raises(ConfigError, match=r"is none of the form 'vllm' \(no JSON, or null\)"),
    ):
        RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
    with pytest.raises(ConfigError, match="Unknown API 'tgi'"):
        RemoteScorer("http://127.0.0.1:1", api="tgi")


def test_a_refused_row_is_found_and_the_others_have_their_rewards():
    """A request that is refused is asked again row by row, and no other is."""
    bad = TOKENIZER.encode("Q: zz\nA: x")

    def refuse(body):
        return any(ids[: len(bad)] == bad for ids in body.get("input", []))

    with RewardServer("vllm", refuse=lambda n: 400 if refuse(server.asked[-1][1]) else None) as (
        server
    ):
        scorer = RemoteScorer(
            server.url, tokenizer=TOKENIZER, template=TEMPLATE, concurrency=1
        )
        server.asked.clear()
        found = scorer.score_each(PROMPTS, COMPLETIONS, batch_size=2)
        assert [len(body["input"]) for _, body in server.asked] == [2, 2, 1, 1, 1]
    assert str(found[3]).startswith(f"Row 4: the server {server.url} refuses it: ")
    for row in (0, 1, 2, 4):
        assert found[row] == pytest.approx(expected()[row])


def test_an_error_with_status_200_is_a_failure(monkeypatch):
    rewards, error = RewardServer._rewards, {"error": {"message": "model overloaded"}}
    monkeypatch.setattr(RewardServer, "_rewards", lambda self, body: (
        error if body["query"] == ["xy"] else rewards(self, body)
    ))
    with RewardServer("openrlhf") as server:
        scorer = RemoteScorer(server.url + "/get_reward", template=PLAIN)
        scorer._client.max_retries = 0
        with pytest.raises(ConfigError, match=r"does not work: .*model overloaded"):
            scorer.score_each(["x"], ["y"])


@pytest.mark.parametrize(("reply", "told"), [
    ({"data": [{"index": 0}]}, "{'data': [{'index': 0}]}"),
    ([1, 2], "[1, 2]"), ({"data": "x" * 500}, " …"),
])
def test_answers_in_another_form_are_told(reply, told, monkeypatch):
    with RewardServer("openrlhf") as server:
        scorer = RemoteScorer(server.url + "/get_reward", template=PLAIN)
        monkeypatch.setattr(scorer._client, "post", lambda *_, **__: reply)
        with pytest.raises(ConfigError, match=r"none of the form 'openrlhf' \(") as refused:
            scorer.score(["a"], ["b"])
    assert told in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("url", [
    "", "localhost:8000", "127.0.0.1:8000/v1", "ftp://host", "http://", "http://[::1",
    "http://host:99999", 8000,
])
def test_what_is_no_address_is_refused(url):
    for kind in (RemoteScorer, partial(JudgeScorer, model="m")):
        with pytest.raises(ConfigError, match="Expected the address of a server"):
            kind(url)


def test_a_password_in_the_address_is_not_told():
    with RewardServer("vllm") as server:
        url = server.url.replace("http://", "http://me:secret@")
        scorer = RemoteScorer(url, tokenizer=TOKENIZER, template=TEMPLATE)
    assert "secret" not in scorer.name + str(scorer.provenance())


def test_rewards_that_are_no_numbers_name_their_row():
    bad = TOKENIZER.encode("Q: zz\nA: x")

    def reward(ids):
        return float("nan") if ids[: len(bad)] == bad else reward_of(ids)

    with RewardServer("sglang", reward=reward) as server:
        scorer = RemoteScorer(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        with pytest.raises(NonFiniteError, match="row 4 is nan"):
            scorer.score(PROMPTS, COMPLETIONS, batch_size=2)
