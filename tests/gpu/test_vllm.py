"""Guided vLLM on a GPU: runners, CUDA graphs, compiled code, drafts of n-grams, several GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed")

from tests.gpu.answers import COUNT, weight_of
from tests.models.test_shared_backbone import keep_adapter
from tests.vllm.models import save_models

ROOT = Path(__file__).parents[2]
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
WAYS = {
    "drafts": {"speculative_config": DRAFTS},
    "no graphs": {"enforce_eager": True},
    "chunks of prompts": {"max_num_batched_tokens": 128},
    "graphs of pieces": {"compilation_config": {"cudagraph_mode": "PIECEWISE"}},
    "no prefix cache": {"enable_prefix_caching": False},
}
ENVIRONMENTS = {
    "first runner": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "parts compiled apart": {"VLLM_USE_MEGA_AOT_ARTIFACT": "0"},
    "compiled on the way": {"VLLM_USE_AOT_COMPILE": "0"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    keep_adapter(root / "policy", root / "adapter", "vocabulary")
    return root


@pytest.fixture(scope="module")
def answers(root):
    """Tokens by request, and the scores that the first of them was chosen by. Compiled code is
    shared by all, as on a machine where vLLM starts often."""
    def answers(*rewards, asked=None, policy="policy", environment=(), **options):
        file, out = root / "settings.json", root / "out.json"
        file.write_text(json.dumps({
            "policy": str(root / policy), "rewards": [str(root / name) for name in rewards],
            "asked": asked or next(iter(rewards), ""), "options": options, "out": str(out),
        }))
        subprocess.run(
            [sys.executable, "-m", "tests.gpu.answers", str(file)], check=True, cwd=ROOT,
            timeout=900, env={**os.environ, "VLLM_CACHE_ROOT": str(root / "cache"),
                              "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **dict(environment)},
        )
        return json.loads(out.read_text())

    return answers


@pytest.fixture(scope="module")
def guided(answers):
    return answers("farma")


def mostly_equal(found, expected):
    """bfloat16 may round a close choice the other way."""
    same = sum(one == other for one, other in zip(found[0], expected[0], strict=True))
    assert same > 0.9 * COUNT


def test_first_tokens_are_chosen_by_weighted_sums(root, answers, guided):
    """Of the scores of two unguided engines; weight 0 leaves texts as they are."""
    plain, policy = answers()
    # The reward model as a causal model: its logits are the rewards.
    _, rewards = answers(policy="farma-alone")
    for number in range(COUNT):
        weight = weight_of(number)
        for token, score in guided[1][number].items():
            right = policy[number][token] + weight * rewards[number][token]
            assert score == pytest.approx(right, abs=0.05, rel=0.02)
        if weight == 0:
            assert guided[0][number] == plain[number]
    assert sum(one != other for one, other in zip(guided[0], plain, strict=True)) > COUNT // 2


@pytest.fixture(scope="module", autouse=True)
def alone(root):
    """Another name, because a folder of ours is taken for a reward model."""
    (root / "farma-alone").symlink_to(root / "farma")


@pytest.mark.parametrize("way", WAYS)
def test_how_vllm_runs_it_makes_no_difference(answers, guided, way):
    mostly_equal(answers("farma", **WAYS[way]), guided)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("again", [False, True], ids=["compiled", "from the cache"])
def test_how_vllm_compiles_it_makes_no_difference(answers, guided, name, again):
    mostly_equal(answers("farma", environment=ENVIRONMENTS[name].items()), guided)


@pytest.mark.parametrize("names", [("farma", "genarm"), ("genarm", "farma"), ("genarm",)])
def test_the_place_of_a_reward_model_makes_no_difference(answers, guided, names):
    """Compiled code of one place is not taken for that of another."""
    if "farma" in names:
        mostly_equal(answers(*names, asked="farma"), guided)
    else:
        mostly_equal(answers(*names), answers(*names, enforce_eager=True))


def test_an_adapter_on_the_policys_weights(answers):
    mostly_equal(answers("adapter"), answers("adapter", enforce_eager=True))


def test_both_are_quantised_while_they_load(answers, guided):
    tokens, scores = answers("farma", quantization="fp8")
    assert len(tokens) == COUNT
    assert scores[1] != guided[1][1]


def test_two_gpus_share_both_models(answers, guided):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    mostly_equal(answers("farma", tensor_parallel_size=2), guided)
