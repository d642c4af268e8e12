"""Generation through the public `Steerer`."""

import logging

import numpy as np
import pytest

from rewardsteer import RewardModel, Steerer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.text_scorer import TextScorer

SHORT = {"max_new_tokens": 6, "seed": 2, "top_k": 5}


@pytest.fixture(scope="module")
def farma(folders):
    return RewardModel.from_pretrained(folders / "farma")


@pytest.fixture(scope="module")
def steerer(folders, farma):
    return Steerer(folders / "policy", farma, weight=2.0, **SHORT)


def test_the_same_as_generate(steerer, folders, farma):
    prompts = ["2+2=", "1+1="]
    config = DecodingConfig(method="farma", weight=2.0, **SHORT)
    known = list(generate(
        load_policy(folders / "policy"), load_tokenizer(folders / "policy"), prompts,
        build_method(config, farma.scorer), config,
    ))
    found = steerer.generate(prompts)
    assert [one.token_ids for one in found] == [one.token_ids for one in known]
    assert [one.text for one in found] == [one.completion for one in known]
    assert found[0].cost.rm_calls == found[0].cost.new_tokens


def test_settings_of_one_call(steerer):
    assert len(steerer.generate("2+2=", max_new_tokens=2)[0].token_ids) <= 2
    assert steerer.config.max_new_tokens == 6
    with pytest.raises(ConfigError, match="Unknown setting"):
        steerer.generate("2+2=", max_tokens=2)


def test_chat_and_a_single_conversation(steerer):
    messages = [{"role": "user", "content": "2+2="}]
    assert steerer.chat(messages).text == steerer.generate(messages)[0].text


def test_pieces_come_to_the_whole(steerer):
    whole = steerer.generate("2+2=", max_new_tokens=40)[0]
    pieces = list(steerer.stream("2+2=", max_new_tokens=40))
    assert "".join(pieces) == whole.text
    assert len(pieces) > 1


def test_a_stream_may_be_left(steerer):
    pieces = steerer.stream("2+2=", max_new_tokens=400)
    next(pieces)
    pieces.close()
    assert steerer.generate("2+2=")[0].error is None


def test_methods_that_choose_stream_their_answer_at_once(folders):
    steerer = Steerer(folders / "policy", folders / "bt", method="best_of_n", n=2, **SHORT)
    assert list(steerer.stream("2+2=")) == [steerer.generate("2+2=")[0].text]


def test_the_log_says_why_a_method_was_chosen(folders, caplog):
    caplog.set_level(logging.INFO, "rewardsteer")
    Steerer(folders / "policy", folders / "bt", **SHORT)
    assert caplog.messages == [
        "method: args (the default for a scalar head trained with bradley_terry; choose another "
        "with method=)"
    ]
    caplog.clear()
    Steerer(folders / "policy", folders / "bt", method="args", **SHORT)
    assert not caplog.messages


def test_without_a_reward_model_it_is_the_policy(folders, caplog):
    caplog.set_level(logging.INFO, "rewardsteer")
    steerer = Steerer(folders / "policy", **SHORT)
    assert steerer.config.method == "none"
    assert "method: none (there is no reward model" in caplog.text
    assert steerer.generate("2+2=")[0].cost.rm_calls == 0


def test_a_goal_state_is_found_beside_the_model(folders):
    steerer = Steerer(folders / "policy", folders / "bt", method="goal_filter", n=2, **SHORT)
    assert steerer.generate("2+2=")[0].error is None


def test_a_loaded_policy(folders, farma):
    policy = load_policy(folders / "policy")
    tokenizer = load_tokenizer(folders / "policy")
    named = Steerer(folders / "policy", farma, **SHORT)
    loaded = Steerer(policy, farma, tokenizer=tokenizer, **SHORT)
    assert loaded.generate("a")[0].token_ids == named.generate("a")[0].token_ids
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        Steerer(policy, farma)


def test_several_reward_models(folders, farma):
    both = Steerer(
        folders / "policy", [farma, farma], method="farma", reward_weights=[0.5, 0.5], **SHORT
    )
    one = Steerer(folders / "policy", farma, **SHORT)
    assert both.generate("a")[0].token_ids == one.generate("a")[0].token_ids


def test_comparison(steerer, folders):
    table = steerer.compare(
        ["2+2=", "1+1=", "a"], ["none", "farma"], judge=folders / "bt",
    )
    assert list(table.rows) == ["none", "farma"]
    assert table["none"]["reward_gain"] == 0
    assert table["farma"]["rm_calls_per_token"] == 1
    assert table.to_pandas().loc["farma", "reward"] == table["farma"]["reward"]
    assert table.to_markdown().splitlines()[2].startswith("| none |")


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"method": "frama"}, ConfigError, "Did you mean 'farma'"),
    ({"engine": "tensorrt"}, ConfigError, "Unknown engine"),
    ({"engine": "openai"}, ConfigError, "base_url"),
    ({"method": "none"}, ConfigError, "uses no reward model"),
    ({"method": "pargs"}, MismatchError, "scalar"),
    ({"weigth": 3}, ConfigError, "Unknown setting"),
])
def test_what_is_refused(folders, farma, changes, error, message):
    with pytest.raises(error, match=message):
        Steerer(folders / "policy", farma, **changes)


class Shortest(TextScorer):
    """Scores texts alone: the shorter the better."""

    name = "shortest"

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        return np.array([-float(len(one)) for one in completions])


def test_a_model_that_scores_texts_chooses_among_draws(folders):
    steerer = Steerer(folders / "policy", RewardModel(Shortest()), n=4, device="cpu", seed=1)
    assert steerer.config.method == "best_of_n"
    [answer] = steerer.generate("1+1=", max_new_tokens=8)
    assert answer.reward == -len(answer.text)


def test_a_template_may_be_a_mapping(folders):
    own = {"kind": "text", "prompt": "Q {prompt}"}
    assert Steerer(folders / "policy", method="none", template=own).template.prompt == "Q {prompt}"
    with pytest.raises(ConfigError, match="as a mapping of settings"):
        Steerer(folders / "policy", method="none", template="chat")
