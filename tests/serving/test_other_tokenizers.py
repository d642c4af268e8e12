"""A server whose reward model has another tokenizer than its policy, or reads texts alone."""

import httpx
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.errors import MismatchError
from rewardsteer.models.remote.scorer import RemoteScorer
from rewardsteer.records import Message
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.cli.test_generate_command import save_reward_model
from tests.decoding.test_other_tokenizers import Vowels, byte_tokenizer, make_scorer, policy
from tests.fakes import character_tokenizer, tiny_causal_lm
from tests.models.remote.reward_server import RewardServer
from tests.serving.running import offline, running

PROMPTS = ["What is 7+8?", "é", "zz top"]
STRATEGIES = {
    "best_of_n": {"n": 4},
    "beam": {"beam": 2, "branches": 2, "step_tokens": 3, "max_steps": 5},
    "majority_vote": {"n": 3},
}

__all__ = ["policy"]


def serve(policy, scorer, method="best_of_n", **limits):
    config = ServingConfig(**{"places": 8, "seconds": 60.0, **limits})
    defaults = DecodingConfig(method=method, n=3, top_k=5, weight=4.0)
    return Service(ServedModels(*policy, scorer, defaults, config, name="tiny"), config)


@pytest.fixture(scope="module")
def service(policy, tmp_path_factory):
    """The reward model's tokens are merged bytes; its template shows whether texts are rewritten.
    """
    template = {"prompt": "Q: {prompt}\nA:", "response": " {response}"}
    return serve(policy, make_scorer(
        tmp_path_factory.mktemp("merged"), byte_tokenizer(merges=30), **template
    ))


@pytest.fixture(scope="module")
def address(service):
    with running(service) as (address, _):
        yield address


def post(address, path, status=200, **body):
    reply = httpx.post(f"{address}/v1/{path}", json=body, timeout=60)
    assert reply.status_code == status, reply.text
    return reply.json() if status == 200 else reply.json()["error"]["message"]


def shown(results):
    return [(one.token_ids, one.completion, one.finish_reason) for one in results]


def answers(choices):
    return [(one["token_ids"], one["text"], one["finish_reason"]) for one in choices]


@pytest.mark.parametrize("method", STRATEGIES)
def test_strategies_answer_as_generate_does(service, address, method):
    given = STRATEGIES[method]
    found = post(
        address, "completions", prompt=PROMPTS, method=method, method_settings=given, seed=2,
        max_tokens=14, top_k=0, return_token_ids=True,
    )["choices"]
    right = offline(
        service, PROMPTS, method=method, seed=2, max_new_tokens=14, top_k=0, **given
    )
    assert answers(found) == shown(right)
    rewards = [choice["guidance"]["reward"] for choice in found]
    assert rewards == pytest.approx([one.reward for one in right], abs=1e-4)
    if method == "best_of_n":
        expected = service.served.scorer.score(PROMPTS, [one["text"] for one in found])
        for choice, value in zip(found, expected, strict=True):
            if choice["finish_reason"] == "stop":
                assert choice["guidance"]["reward"] == pytest.approx(value, abs=1e-4)


def test_candidates_are_tokenized_anew(service, address):
    body = {"prompt": PROMPTS, "temperature": 0, "max_tokens": 8, "return_token_ids": True}
    found = post(address, "completions", method="args", **body)["choices"]
    right = offline(service, PROMPTS, method="args", mode="greedy", max_new_tokens=8)
    assert answers(found) == shown(right)
    plain = post(address, "completions", method="none", **body)["choices"]
    assert answers(plain) != answers(found)


def test_conversations_and_ids_are_read_as_texts(service, address, policy):
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I"},
            {"role": "user", "content": "zz"}]
    reply = post(address, "chat/completions", messages=talk, seed=1, max_tokens=6)
    [choice] = reply["choices"]
    turns = [Message(**turn) for turn in talk]
    [reward] = service.served.scorer.score([turns], [choice["message"]["content"]])
    assert choice["guidance"]["reward"] == pytest.approx(reward, abs=1e-4)
    ids = policy[1].encode("zz top")
    [by_ids] = post(address, "completions", prompt=ids, seed=3, max_tokens=9)["choices"]
    [by_text] = post(address, "completions", prompt="zz top", seed=3, max_tokens=9)["choices"]
    assert (by_ids["text"], by_ids["guidance"]["reward"]) == (
        by_text["text"], by_text["guidance"]["reward"]
    )


def test_what_cannot_work_is_refused_by_a_sentence(address):
    known = httpx.get(f"{address}/v1/models").json()["data"][0]["methods"]
    assert {"best_of_n", "beam", "args", "none"} <= set(known)
    assert "farma" not in known
    message = post(address, "completions", 400, prompt="a", method="farma")
    assert "needs a reward model with" in message
    message = post(address, "inspect", 400, prompt="a", completion="b")
    assert "serve one with the policy's tokenizer" in message


def test_vocabulary_heads_need_the_same_tokens(policy, tmp_path):
    scorer = make_scorer(tmp_path, byte_tokenizer(merges=30), "vocabulary")
    with pytest.raises(MismatchError, match="use best_of_n or beam, which judge texts"):
        serve(policy, scorer, "farma")
    served = serve(policy, scorer).served
    assert "farma" not in served.methods.names
    assert "best_of_n" in served.methods.names


def test_a_message_is_not_continued_for_what_reads_texts(tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    model = tiny_causal_lm("llama", vocab_size=len(tokenizer), seed=0).eval()
    with running(serve((model, tokenizer), Vowels())) as (address, _):
        body = {"messages": [{"role": "assistant", "content": "a"}], "max_tokens": 3,
                "add_generation_prompt": False, "continue_final_message": True}
        assert "two texts" in post(address, "chat/completions", 400, **body)
        post(address, "chat/completions", method="none", **body)


def test_an_address_chooses_among_draws(policy):
    """A failure there is not told in its own words."""
    with RewardServer("sglang", refuse=lambda n: {4: 401}.get(n)) as behind:
        scorer = RemoteScorer(behind.url, tokenizer=character_tokenizer(),
                              template=Template(kind="text"))
        with running(serve(policy, scorer)) as (address, _):
            [choice] = post(
                address, "completions", prompt="a", seed=1, max_tokens=4, logit_bias={
                    str(policy[1].encode("é")[0]): -100.0, str(policy[1].encode("é")[1]): -100.0,
                },
            )["choices"]
            right = scorer.score(["a"], [choice["text"]])
            assert choice["guidance"]["reward"] == pytest.approx(float(right[0]), abs=1e-6)
            behind.refuse = lambda n: 401
            message = post(address, "completions", 502, prompt="a", max_tokens=4)
    assert "does not answer as it should" in message


def test_the_command_refuses_before_the_policy_loads(policy, tmp_path, monkeypatch):
    tokenizer = policy[1]
    tiny_causal_lm("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    tiny_causal_lm("llama", vocab_size=287).save_pretrained(tmp_path / "base")
    save_reward_model(
        tmp_path / "base", tmp_path / "rm", "vocabulary", byte_tokenizer(merges=30)
    )

    def opened(*args, **options):
        raise AssertionError("the policy is not needed to see this")

    monkeypatch.setattr(TransformersEngine, "open", opened)
    result = CliRunner().invoke(app, [
        "serve", "--model", str(tmp_path / "policy"), "--reward-model", str(tmp_path / "rm"),
        "--method", "farma", "--port", "0", "--device", "cpu",
    ])
    assert result.exit_code == 2
    assert "use best_of_n or beam" in " ".join(result.output.split())
