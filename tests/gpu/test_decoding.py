"""Scores and greedy answers on a CUDA device are those of the CPU."""

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.goals.build import mean_goal
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.shared_backbone import SharedScorer
from tests.cli import kinds_of_models
from tests.fakes import character_tokenizer, save_tiny
from tests.models.test_shared_backbone import keep_adapter

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who?"]
ANSWERS = ["It is 15.", "b c d", "12", "yes yes", "me"]
HEADS = {
    "scalar": HeadConfig(), "mlp": HeadConfig(layers="mlp"),
    "vocabulary": HeadConfig(kind="vocabulary"),
    "low_rank": HeadConfig(kind="vocabulary", layers="low_rank", rank=3),
}
METHODS = {
    "none": None, "farma": "vocabulary", "args": "scalar", "best_of_n": "scalar", "beam": "scalar",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_tiny(root / "policy")
    save_tiny(root / "base", seed=7)
    for name, head in HEADS.items():
        torch.manual_seed(3)
        card = CheckpointCard(head=head, template=Template(kind="text").model_dump())
        model = RewardModel.from_base(root / "base", head)
        model.save_pretrained(root / name, character_tokenizer(), card)
    return root


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", HEADS)
def test_rewards_of_rows_and_tokens(root, head, dtype):
    found, expected = (
        load_scorer(root / head, device=device, dtype=dtype) for device in ("cuda", "cpu")
    )
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype is torch.float32 else {"atol": 0.1, "rtol": 0.1}
    prompts, answers = PROMPTS * 2, ANSWERS + ANSWERS[::-1]  # Prompts are shared.
    np.testing.assert_allclose(
        found.score(prompts, answers), expected.score(prompts, answers), **close
    )
    goals = [mean_goal(one, *one.encode(PROMPTS, ANSWERS)) for one in (found, expected)]
    for ours, theirs in zip(*(
        one.token_scores(prompts, answers, goal=goal)
        for one, goal in zip((found, expected), goals, strict=True)
    ), strict=True):
        np.testing.assert_allclose(ours.rewards, theirs.rewards, **close)
        np.testing.assert_allclose(ours.similarities, theirs.similarities, **close)


@pytest.mark.parametrize("make", ["process_model", "encoder", "many_labels"])
def test_kinds_of_others(tmp_path, make):
    folder = getattr(kinds_of_models, make)(tmp_path / "model")
    options = {"attribute": "joy"} if make == "many_labels" else {}
    found, expected = (
        load_scorer(folder, device=device, **options).score(PROMPTS, ANSWERS)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_likelihoods_of_a_policy(root):
    found, expected = (
        load_scorer(
            root / "policy", kind="implicit", reference=root / "base", device=device
        ).score(PROMPTS, ANSWERS) for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def answers(root, config, policy_device, reward_device):
    head = METHODS[config.method]
    scorer = head and load_scorer(root / head, device=reward_device)
    policy = load_policy(root / "policy", device=policy_device)
    return [one.token_ids for one in generate(
        policy, character_tokenizer(), PROMPTS, build_method(config, scorer), config
    )]


@pytest.mark.parametrize("reward", ["cuda", "cpu"])
@pytest.mark.parametrize("name", METHODS)
def test_answers(root, name, reward):
    config = DecodingConfig(
        method=name, top_k=5, n=2, weight=1.5, max_new_tokens=12, batch_size=3,
        # Draws come from the host.
        mode="sample" if name in ("best_of_n", "beam") else "greedy",
    )
    assert answers(root, config, "cuda", reward) == answers(root, config, "cpu", "cpu")


@pytest.mark.parametrize("draft", ["ngram", "policy"])
def test_drafts_change_nothing(root, draft):
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=12, batch_size=3)
    drafted = config.model_copy(update={"draft": draft, "draft_tokens": 3})
    assert answers(root, drafted, "cuda", "cuda") == answers(root, config, "cuda", "cuda")


@pytest.mark.parametrize(("kind", "name"), [("vocabulary", "farma"), ("scalar", "args")])
def test_an_adapter_on_the_policys_weights(root, tmp_path, kind, name):
    keep_adapter(root / "policy", tmp_path / "kept", kind)
    config = DecodingConfig(
        method=name, mode="greedy", top_k=5, max_new_tokens=12, batch_size=3
    )
    found = []
    for device in ("cuda", "cpu"):
        policy = load_policy(root / "policy", device=device)
        scorer = SharedScorer(policy, str(root / "policy"), tmp_path / "kept")
        method = build_method(config, scorer)
        found.append([
            one.token_ids
            for one in generate(policy, character_tokenizer(), PROMPTS, method, config)
        ])
    assert found[0] == found[1]


def test_several_gpus_score_and_decode_one_model(root):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    layers = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0,
              "model.layers.1": 1, "model.norm": 1}
    for head, top in (("scalar", "score"), ("mlp", "score"), ("vocabulary", "lm_head")):
        for place in (0, 1):
            spread = load_scorer(root / head, device_map=layers | {top: place})
            alone = load_scorer(root / head, device="cpu")
            np.testing.assert_allclose(
                spread.score(PROMPTS * 2, ANSWERS + ANSWERS[::-1]),
                alone.score(PROMPTS * 2, ANSWERS + ANSWERS[::-1]), atol=1e-4, rtol=1e-4,
            )
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=12, batch_size=3)
    spread = load_policy(root / "policy", device_map=layers | {"lm_head": 0})
    method = build_method(config, load_scorer(root / "vocabulary", device="cuda:1"))
    found = list(generate(spread, character_tokenizer(), PROMPTS, method, config))
    assert [one.token_ids for one in found] == answers(root, config, "cpu", "cpu")
