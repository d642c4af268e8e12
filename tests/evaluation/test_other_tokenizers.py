"""Comparisons in which judges and reward models have other tokenizers than the policy, score texts
alone, or compare pairs."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer import RewardModel, Steerer
from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import MismatchError
from rewardsteer.evaluation.budget import Budget, relative_sizes
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel as Weights
from rewardsteer.records import Generation
from tests.chat import save_policy
from tests.decoding.test_generate import make_policy
from tests.fakes import CHARACTERS, save_tiny
from tests.models.kinds.published import save_pair_encoder

REQUESTS = [Request(id=str(number), prompt=f"{number}+1=") for number in range(10)]
SHORT = {"max_new_tokens": 5, "top_k": 4, "batch_size": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, and reward models that read the same characters under other ids, texts by a form
    of their own, and pairs."""
    root = tmp_path_factory.mktemp("others")
    base = save_tiny(root / "base", characters=CHARACTERS[::-1])
    for kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        Weights.from_base(base, head).save_pretrained(
            root / kind, load_tokenizer(base), CheckpointCard(head=head)
        )
    save_policy(root / "nemotron", "llama3")
    save_pair_encoder(root / "pairs")
    policy, own = make_policy("llama")
    policy.save_pretrained(root / "policy")
    own.save_pretrained(root / "policy")
    return root


@pytest.fixture(scope="module")
def models(world):
    kinds = {"scalar": None, "vocabulary": None, "nemotron": "nemotron", "pairs": "pairrm"}
    return {
        name: load_scorer(world / name, kind=kind, device="cpu", pairs=True)
        for name, kind in kinds.items()
    }


def records(place):
    return [json.loads(line) for line in place.read_text().splitlines()]


@pytest.mark.parametrize("name", ["scalar", "nemotron"])
def test_any_reward_model_judges_what_it_would_score(world, models, tmp_path, name):
    policy, tokenizer = make_policy("llama")
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entries = [Entry("none", DecodingConfig(method="none", **SHORT))]
    compare(entries, shared, REQUESTS, Judge(models[name]), tmp_path)
    found = records(tmp_path / "none.jsonl")
    texts = [Generation.model_validate(one["generation"]).completion for one in found]
    expected = models[name].score([one.prompt for one in REQUESTS], texts)
    np.testing.assert_allclose([one["metrics"]["reward"] for one in found], expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


def test_every_method_takes_its_reward_model(models, tmp_path):
    policy, tokenizer = make_policy("llama")
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entries = [
        Entry("none", DecodingConfig(method="none", **SHORT)),
        Entry("best", DecodingConfig(method="best_of_n", n=3, **SHORT), models["nemotron"]),
        Entry("other", DecodingConfig(method="best_of_n", n=3, **SHORT), models["scalar"]),
        Entry("farma", DecodingConfig(method="farma", **SHORT), models["vocabulary"]),
        Entry("pairs", DecodingConfig(method="tournament", n=3, **SHORT), models["pairs"]),
    ]
    judge = Judge(models["scalar"], second=models["nemotron"])
    found = compare(entries, shared, REQUESTS, judge, tmp_path, kl_prompts=2)
    for label, figures in found.items():
        assert math.isfinite(figures["reward"]), label
        assert math.isfinite(figures["second_reward"]), label
    assert found["other"]["reward"] > found["none"]["reward"]
    assert found["farma"]["kl"] > 0
    assert "kl" not in found["pairs"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judged_by_guide"] == ["other"]


def test_equal_budgets_choose_by_the_methods_own_reward(models, tmp_path):
    policy, tokenizer = make_policy("llama")
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entries = [
        Entry("best", DecodingConfig(method="best_of_n", **SHORT), models["nemotron"]),
        Entry("pairs", DecodingConfig(method="tournament", n=2, **SHORT), models["pairs"]),
    ]
    found = compare(
        entries, shared, REQUESTS, Judge(models["scalar"]), tmp_path,
        budget=Budget("calls", 3),
    )
    assert found["best"]["draws"] == 3
    draws = records(tmp_path / "draws" / "best.jsonl")
    kept = {one["generation"]["id"]: one["generation"] for one in records(tmp_path / "best.jsonl")}
    for request in REQUESTS:
        own = [one for one in draws if one["generation"]["id"] == request.id]
        rewards = models["nemotron"].score(
            [request.prompt] * len(own), [one["generation"]["completion"] for one in own]
        )
        np.testing.assert_allclose([one["reward"] for one in own], rewards, atol=1e-5)
        assert kept[request.id]["completion"] == own[int(rewards.argmax())]["generation"][
            "completion"]


def test_sizes_count_the_weights_of_every_kind(models):
    policy, _ = make_policy("llama")
    count = sum(one.numel() for one in policy.parameters())
    for scorer, parts in (
        (models["scalar"], [models["scalar"].reward_model]),
        (models["pairs"], [models["pairs"].model, models["pairs"].head]),
    ):
        weights = sum(one.numel() for part in parts for one in part.parameters())
        assert relative_sizes(count, scorer).scorer == pytest.approx(weights / count)


def test_what_cannot_judge_is_refused_before_work(models, tmp_path):
    policy, tokenizer = make_policy("llama")
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entries = [Entry("none", DecodingConfig(method="none", **SHORT))]
    given = [Request(id="a", prompt="1", prompt_ids=[4, 5])]
    for name, requests, words in (
        ("pairs", REQUESTS, "compares two responses"),
        ("vocabulary", REQUESTS, "The judge needs a reward model with"),
        ("scalar", given, r"prompt 'a' is given as token ids, but .* another tokenizer"),
        ("nemotron", given, "another tokenizer"),
    ):
        with pytest.raises(MismatchError, match=words):
            compare(entries, shared, requests, Judge(models[name]), tmp_path / name)
        assert not (tmp_path / name).exists()


def test_on_the_command_line_and_in_python(world, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "2+1="}\n')
    (tmp_path / "methods.yaml").write_text(
        f"none: {{method: none, max_new_tokens: 4}}\n"
        f"pairs: {{method: tournament, n: 2, max_new_tokens: 4, reward_model: {world / 'pairs'}}}\n"
    )
    done = CliRunner().invoke(app, [
        "evaluate", "generation", "--model", str(world / "policy"), "--device", "cpu",
        "--prompts", str(tmp_path / "prompts.jsonl"), "--methods", str(tmp_path / "methods.yaml"),
        "--judge", str(world / "nemotron"), "--kind", "nemotron", "--out", str(tmp_path / "out"),
    ])
    assert done.exit_code == 0, done.output
    methods = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    assert methods["pairs"]["rm_calls_per_token"] > 0
    judge = RewardModel.from_pretrained(world / "nemotron", kind="nemotron", device="cpu")
    steerer = Steerer(str(world / "policy"), device="cpu", max_new_tokens=4)
    assert steerer.compare(["1+1="], ["none"], judge=judge).rows
