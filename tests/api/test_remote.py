"""Reward models behind an address have the methods of one that is loaded."""

import numpy as np
import pytest

from rewardsteer import JudgeRewardModel, RemoteRewardModel, RewardModel
from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError, MismatchError
from tests.evaluation.test_judge import Server, says
from tests.models.remote.reward_server import TOKENIZER, RewardServer
from tests.serving.running import make_service, running

TEMPLATE = Template(kind="text", prompt="Q: {prompt}\nA:", response=" {response}")
PROMPTS, COMPLETIONS = ["1+1", "Who?"], ["2", "Me, I think"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from tests.fakes import save_tiny

    folder = save_tiny(tmp_path_factory.mktemp("remote") / "llama", seed=7)
    service = make_service(folder, head="scalar", with_policy=False, method="none",
                           template=TEMPLATE)
    with running(service) as (address, _):
        yield address, RewardModel(service.served.scorer)


def test_the_same_methods_and_numbers(served):
    address, local = served
    remote = RemoteRewardModel(address)
    assert repr(remote) == f"RemoteRewardModel({address!r}, api='rewardsteer')"
    assert remote.score("1+1", "2") == pytest.approx(local.score("1+1", "2"), abs=1e-5)
    np.testing.assert_allclose(
        remote.score(PROMPTS, COMPLETIONS), local.score(PROMPTS, COMPLETIONS), atol=1e-5
    )
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]
    assert remote.score(talk) == pytest.approx(local.score(talk), abs=1e-5)
    assert [one.index for one in remote.rank("1+1", ["2", "3", "11"])] == [
        one.index for one in local.rank("1+1", ["2", "3", "11"])
    ]
    np.testing.assert_allclose(
        remote.step_scores("1+1", ["one", "two"]), local.step_scores("1+1", ["one", "two"]),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        remote.reward_function()(prompts=PROMPTS, completions=COMPLETIONS),
        local.reward_function()(prompts=PROMPTS, completions=COMPLETIONS), atol=1e-5,
    )
    by_name = RewardModel.from_pretrained(address)
    assert by_name.score("1+1", "2") == pytest.approx(remote.score("1+1", "2"))
    assert RemoteRewardModel.from_pretrained(address, api="rewardsteer").score("1+1", "2") == (
        pytest.approx(remote.score("1+1", "2"))
    )


def test_what_needs_tokens_is_refused(served):
    remote = RemoteRewardModel(served[0])
    for call in (lambda: remote.token_scores("1+1", "2"), lambda: remote.logits_processor(),
                 lambda: remote.save_pretrained("x")):
        with pytest.raises(MismatchError, match="scores whole texts"):
            call()


def test_options_of_other_servers():
    with RewardServer("sglang") as server:
        remote = RemoteRewardModel(server.url, tokenizer=TOKENIZER, template=TEMPLATE)
        assert remote.scorer.api == "sglang"
        by_kind = RewardModel.from_pretrained(
            server.url, kind="remote", tokenizer=TOKENIZER, template=TEMPLATE
        )
        assert by_kind.score("a", "b") == remote.score("a", "b")
        with pytest.raises(ConfigError, match="Unknown option 'tokeniser' of a reward model"):
            RewardModel.from_pretrained(server.url, tokeniser=TOKENIZER)


def test_a_judge():
    pytest.importorskip("openai")
    with Server(lambda question, _: says("Score: 8" if "good" in question else "Score: 2")) as one:
        judge = JudgeRewardModel(one.url, "referee")
        assert repr(judge) == f"JudgeRewardModel({one.url!r}, 'referee')"
        assert judge.score("a", "good") == 8
        assert [best.index for best in judge.rank("a", ["bad", "good"])] == [1, 0]
        by_kind = RewardModel.from_pretrained(one.url, kind="judge", model="referee")
        assert by_kind.score("a", "bad") == 2
        assert by_kind.scorer.provenance()["kind"] == "judge"
        with pytest.raises(ConfigError, match="pass model="):
            RewardModel.from_pretrained(one.url, kind="judge")
        with pytest.raises(ConfigError, match="takes no template"):
            RewardModel.from_pretrained(one.url, kind="judge", model="x", template=TEMPLATE)
        with pytest.raises(ConfigError, match="Unknown option 'rubric' of a judge"):
            RewardModel.from_pretrained(one.url, kind="judge", model="x", rubric="y")


def test_an_implicit_reward(tmp_path):
    from tests.fakes import save_tiny

    policy, reference = (save_tiny(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    rm = RewardModel.from_pretrained(
        policy, kind="implicit", reference=reference, beta=0.5, device="cpu"
    )
    found = rm.token_scores("1+1", "2")
    assert found.tokens[-1] == "<eos>"
    assert found.rewards[-1] == pytest.approx(rm.score("1+1", "2"), abs=1e-5)
    assert "implicit" in repr(rm)


@pytest.mark.parametrize(("options", "message"), [
    ({"nonsense": 1}, "Unknown option 'nonsense'"), ({"timeout": 0}, "positive number of seconds"),
    ({"timeout": "x"}, "timeout= as a number, got 'x'"), ({"concurrency": 0}, "from 1 on, got 0"),
    ({"key_env": 3}, "key_env= as text"),
])
def test_wrong_options_are_refused_before_a_request(options, message):
    for make in (
        lambda: RemoteRewardModel("http://127.0.0.1:1", **options),
        lambda: JudgeRewardModel("http://127.0.0.1:1/v1", "m", **options),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize(("options", "message"), [
    ({"label": True}, "label= as a whole number or null, got true"),
    ({"fields": 3}, "fields= as a mapping or null"), ({"template": "x"}, "template= as a mapping"),
    ({"activation": "relu"}, "activation= as 'auto' or 'none' or 'sigmoid', got 'relu'"),
])
def test_options_of_reward_servers(options, message):
    with pytest.raises(ConfigError, match=message):
        RemoteRewardModel("http://127.0.0.1:1", **options)


@pytest.mark.parametrize("scale", [5, (1,), (1, 2, 3), ("1", "9"), (0, 10), (5, 5), (True, 9)])
def test_scales_of_judges(scale):
    with pytest.raises(ConfigError, match="from one digit to a higher one"):
        JudgeRewardModel("http://127.0.0.1:1/v1", "m", scale=scale)
