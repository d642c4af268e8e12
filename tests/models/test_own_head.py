"""A head that the package does not know is trained, saved, loaded and scored with."""

import numpy as np
import pytest
import torch

from rewardsteer.errors import CheckpointError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.models.own_head import Bent
from tests.training import recorded

KIND = "tests.models.own_head:Bent"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    world = recorded.make_world(root, "llama")
    config = TrainConfig.model_validate({
        "base_model": str(world / "base"), "prepared": str(world / "data"),
        "head": {"kind": KIND},
        "optimiser": {"learning_rate": 1e-3, "per_device_train_batch_size": 4},
        "phases": [{"objective": [{"name": "partial"}]}],
        "log": {"progress": False, "print_logs": False},
    })
    return world, train(config, root / "run")


def test_its_layers_are_trained_and_saved(trained):
    world, folder = trained
    torch.manual_seed(0)
    before = RewardModel.from_base(world / "base", HeadConfig(kind=KIND))
    after = RewardModel.from_pretrained(folder)
    assert isinstance(after.head, Bent)
    changed = [
        not torch.equal(one, other) for one, other in
        zip(before.value_head.parameters(), after.value_head.parameters(), strict=True)
    ]
    assert all(changed)


def test_scores_are_those_of_its_definition(trained):
    _, folder = trained
    scorer = load_scorer(folder, device="cpu")
    prompts, responses = ["1+1=", "2+2="], ["2", "5"]
    found = scorer.token_scores(prompts, responses)
    for (prompt, response), one in zip(
        zip(*scorer.encode(prompts, responses), strict=True), found, strict=True
    ):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            states = scorer.reward_model.hidden_states(ids, None)
            expected = scorer.reward_model.value_head(states)[0, len(prompt) :, 0].abs()
        np.testing.assert_allclose(one.rewards, expected, rtol=1e-5)
    np.testing.assert_allclose(
        scorer.score(prompts, responses), [one.rewards[-1] for one in found], rtol=1e-6
    )


def test_training_goes_on_from_it(trained):
    _, folder = trained
    again = RewardModel.from_base(folder, HeadConfig(kind=KIND))
    saved = RewardModel.from_pretrained(folder)
    for one, other in zip(
        again.value_head.parameters(), saved.value_head.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    (folder / "value_head.safetensors").rename(folder / "away.safetensors")
    try:
        with pytest.raises(CheckpointError, match="value_head"):
            RewardModel.from_pretrained(folder)
    finally:
        (folder / "away.safetensors").rename(folder / "value_head.safetensors")


def test_an_unknown_kind_lists_those_that_are_known():
    known = "attributes, scalar, vocabulary"
    with pytest.raises(ValueError, match=f"unknown kind 'scaler'; known: {known}"):
        HeadConfig(kind="scaler")
