"""Classifiers that transformers loaded, as reward models."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rewardsteer import RewardModel, Steerer
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.checkpoint import CheckpointCard, write_card
from rewardsteer.models.heads.config import HeadConfig


@pytest.fixture(scope="module")
def parts(folders):
    model = AutoModelForSequenceClassification.from_pretrained(folders / "bt")
    return model, AutoTokenizer.from_pretrained(folders / "bt")


def test_rewards_are_those_of_the_model_itself(parts, folders):
    model, tokenizer = parts
    found = RewardModel.from_pretrained(model, tokenizer=tokenizer).score("1+1=", ["2", "30"])
    for completion, reward in zip(["2", "30"], found, strict=True):
        ids = tokenizer("1+1=" + completion, return_tensors="pt")
        assert reward == pytest.approx(float(model(**ids).logits[0, 0]), abs=1e-5)
    saved = RewardModel.from_pretrained(folders / "bt", device="cpu").score("1+1=", ["2", "30"])
    np.testing.assert_allclose(found, saved, atol=1e-5)


def test_it_steers_and_is_saved(parts, folders, tmp_path):
    model, tokenizer = parts
    rm = RewardModel.from_pretrained(model, tokenizer=tokenizer)
    steerer = Steerer(folders / "policy", rm, method="best_of_n", n=2, device="cpu")
    assert steerer.generate("1+1=", max_new_tokens=3)[0].reward is not None
    rm.save_pretrained(tmp_path / "saved")
    again = RewardModel.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.score("1+1=", "2") == pytest.approx(rm.score("1+1=", "2"), abs=1e-6)


def test_what_is_no_reward_model_is_refused(parts, folders):
    model, tokenizer = parts
    with pytest.raises(ConfigError, match="used as it is; leave out revision=, beta="):
        RewardModel.from_pretrained(model, tokenizer=tokenizer, revision="main", beta=1)
    with pytest.raises(CheckpointError, match="pass tokenizer="):
        RewardModel.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(folders / "policy")
    with pytest.raises(CheckpointError, match="no linear 'score' layer"):
        RewardModel.from_pretrained(policy, tokenizer=tokenizer)
    several = AutoModelForSequenceClassification.from_pretrained(folders / "policy", num_labels=3)
    with pytest.raises(CheckpointError, match="has 3"):
        RewardModel.from_pretrained(several, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="leave tokenizer= out"):
        RewardModel.from_pretrained(folders / "bt", tokenizer=tokenizer)


def test_a_head_beside_the_classifier_is_not_in_it(folders, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(folders / "bt")
    model.config._name_or_path = str(tmp_path)
    write_card(tmp_path, CheckpointCard(head=HeadConfig(layers="mlp")))
    with pytest.raises(CheckpointError, match="pass the folder in its place"):
        RewardModel.from_pretrained(model, tokenizer=AutoTokenizer.from_pretrained(folders / "bt"))


def test_publishing_takes_the_weights_in_memory(parts, monkeypatch):
    """The folder that they were loaded from holds others once they are trained further."""
    model, tokenizer = parts
    rm = RewardModel.from_pretrained(model, tokenizer=tokenizer)
    published = []

    def push(folder, repository, *, public):
        again = RewardModel.from_pretrained(folder, device="cpu").score("1+1=", "2")
        published.append((repository, again))
        return "address"

    monkeypatch.setattr("rewardsteer.integrations.hub.push", push)
    before = rm.score("1+1=", "2")
    with torch.no_grad():
        model.score.weight.neg_()
    assert rm.push_to_hub("me/model") == "address"
    with torch.no_grad():
        model.score.weight.neg_()
    assert published == [("me/model", pytest.approx(-before, abs=1e-6))]
