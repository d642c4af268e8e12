"""The reward function: by itself, and inside TRL's trainers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rewardsteer.data.template import Template
from rewardsteer.decoding.policy import load_policy
from rewardsteer.errors import DataError
from rewardsteer.integrations.trl import RewardFunction
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.kinds import load_scorer
from rewardsteer.records import Message

RUNS = Path(__file__).parents[2] / "runs"
PROMPTS = ["1+1", "2+2", "3+3"]
COMPLETIONS = ["= 2", "is four, of course", ""]


def test_rewards_are_the_scorers(reward_folder):
    reward = RewardFunction.load(reward_folder, batch_size=2)
    expected = load_scorer(reward_folder).score(PROMPTS, COMPLETIONS)
    given = reward(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]], answer=["2"])
    assert isinstance(given, list)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert len(set(np.round(given, 4))) == 3


def test_load_takes_the_options_of_reward_models(reward_folder):
    reward = RewardFunction.load(reward_folder, template=Template(kind="text", prompt="{prompt}?"))
    expected = load_scorer(reward_folder).score(PROMPTS, COMPLETIONS)
    assert reward.scorer.template.prompt == "{prompt}?"
    assert not np.allclose(reward(prompts=PROMPTS, completions=COMPLETIONS), expected, atol=1e-4)


def test_conversations(reward_folder):
    reward = RewardFunction.load(reward_folder)
    talk = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"},
            {"role": "user", "content": "Sure?"}]
    given = reward(prompts=[talk], completions=[[{"role": "assistant", "content": "Yes."}]])
    expected = reward.scorer.score([[Message(**message) for message in talk]], ["Yes."])
    np.testing.assert_allclose(given, expected, atol=1e-6)


@pytest.mark.parametrize(("completion", "message"), [
    ([{"role": "assistant", "content": ""}, {"role": "tool", "content": "4"}], "role 'tool'"),
    ([], "an empty list"),
    ([{"role": "assistant", "content": [{"type": "image_url"}]}], "only text can be read"),
])
def test_completions_that_are_no_answer_in_text(reward_folder, completion, message):
    reward = RewardFunction.load(reward_folder)
    with pytest.raises(DataError, match=r"Row 1: .*" + message):
        reward(prompts=["2+2"], completions=[completion])


@pytest.mark.parametrize(
    ("config", "trainer"), [(GRPOConfig, GRPOTrainer), (RLOOConfig, RLOOTrainer)],
    ids=["grpo", "rloo"],
)
def test_inside_trl(config, trainer, policy_folder, reward_folder, tmp_path):
    """TRL calls it with its own arguments, logs it under its name and trains by it."""
    seen = []

    class Recorded(RewardFunction):
        def __call__(self, prompts, completions, **columns):
            rewards = super().__call__(prompts, completions, **columns)
            seen.append((prompts, completions, rewards, columns["trainer_state"].global_step))
            return rewards

    policy = load_policy(policy_folder)
    before = policy.lm_head.weight.clone()
    training = trainer(
        model=policy, processing_class=load_tokenizer(policy_folder),
        args=config(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8,
            num_generations=4, max_completion_length=6, learning_rate=1e-2, use_cpu=True,
            bf16=False, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        ),
        reward_funcs=Recorded.load(reward_folder, name="ours"),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 8}),
    )
    training.train()
    assert [len(rewards) for _, _, rewards, _ in seen] == [8, 8]
    assert [step for *_, step in seen] == [0, 1]
    scorer = load_scorer(reward_folder)
    for prompts, completions, rewards, _ in seen:
        np.testing.assert_allclose(rewards, scorer.score(prompts, completions), atol=1e-4)
    logged = [line["rewards/ours/mean"] for line in training.state.log_history
              if "rewards/ours/mean" in line]
    np.testing.assert_allclose(logged, [np.mean(r) for *_, r, _ in seen], atol=1e-4)
    assert not before.equal(policy.lm_head.weight.cpu())


@pytest.mark.slow
def test_the_script(tmp_path, monkeypatch):
    """runs/grpo_arithmetic.py end to end on a few updates; figures are whole, not good."""
    from rewardsteer.demo.config import DemoConfig

    spec = importlib.util.spec_from_file_location("grpo", RUNS / "grpo_arithmetic.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "BATCH", 16)
    small = DemoConfig(
        hidden_size=32, heads=2, policy_steps=60, questions=60, samples=4, reward_steps=3, seed=1
    )
    monkeypatch.setattr(script, "DemoConfig", lambda seed: small.model_copy(update={"seed": seed}))
    monkeypatch.setattr(
        sys, "argv", ["grpo", str(tmp_path), "1", "--steps", "2", "--questions", "20"]
    )
    script.main()
    from rewardsteer.outputs import read_json

    summary = read_json(tmp_path / "summary.json")
    figures = summary["seeds"][0]
    assert figures["sampled_before"]["low"] <= figures["sampled_before"]["value"] <= 1
    gain = figures["sampled_after"]["value"] - figures["sampled_before"]["value"]
    assert figures["sampled_gain"]["value"] == pytest.approx(gain)
    assert summary["over_seeds"]["sampled"]["gains"] == [figures["sampled_gain"]["value"]]
