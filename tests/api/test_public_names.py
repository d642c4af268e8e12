"""The public names: a list, lazy imports, signatures."""

import inspect
import subprocess
import sys

import pytest

import rewardsteer

NAMES = {
    "BENCHMARKS", "METHODS", "OBJECTIVES", "Generation", "GoalState", "JudgeRewardModel", "Ranked",
    "RemoteRewardModel", "RewardModel", "RewardsteerError", "Steerer", "SteeringConfig",
    "TokenScores", "TrainConfig", "__version__", "compare", "distil", "evaluate", "train",
}


def test_the_names_are_these_and_can_be_had():
    assert set(rewardsteer.__all__) == NAMES
    assert dir(rewardsteer) == sorted(NAMES)
    for name in NAMES:
        assert getattr(rewardsteer, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(rewardsteer, "reward_model_of_everything")


def test_importing_loads_no_torch():
    code = "import sys, rewardsteer; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("table", "name"), [
    (rewardsteer.METHODS, "best_of_n"), (rewardsteer.BENCHMARKS, "rewardbench2"),
    (rewardsteer.OBJECTIVES, "bradley_terry"),
])
def test_tables_of_parts_list_their_names(table, name):
    assert name in list(table)
    assert len(table) == len(list(table))
    assert name in repr(table)


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_signatures():
    model = rewardsteer.RewardModel
    assert parameters(model.from_pretrained) == [
        "name_or_path", "tokenizer", "device", "dtype", "template", "revision", "kind",
        "trust_remote_code", "options",
    ]
    assert parameters(model.score) == ["prompts", "completions", "tools", "batch_size"]
    assert parameters(model.rank) == ["prompt", "completions", "tools", "batch_size"]
    assert parameters(model.save_pretrained) == ["folder", "overwrite"]
    assert parameters(model.token_scores) == ["prompt", "completion", "goal"]
    assert parameters(rewardsteer.RemoteRewardModel) == ["url", "api", "options"]
    assert parameters(rewardsteer.JudgeRewardModel) == ["url", "model", "options"]
    assert parameters(rewardsteer.Steerer)[:3] == ["policy", "reward_model", "method"]
    assert parameters(rewardsteer.train)[:3] == ["recipe", "base_model", "dataset"]
    assert parameters(rewardsteer.evaluate)[:2] == ["reward_model", "data"]
