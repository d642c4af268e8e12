"""SmolLM2 under a reward model with Gemma's tokenizer, in this process and over an address that
serves the policy."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate_by
from rewardsteer.decoding.policy import load_policy
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.decoding.test_other_tokenizers import make_scorer
from tests.real.conftest import PROMPTS
from tests.real.gemma import FOLDER
from tests.serving.running import running

METHODS = {
    "best_of_n": {"n": 3},
    "beam": {"beam": 2, "branches": 2, "step_tokens": 3},
    "args": {"top_k": 5, "weight": 40.0, "mode": "greedy"},
}


@pytest.fixture(scope="module")
def policy(smollm2):
    return load_policy(smollm2, device="cpu", dtype=torch.float32), load_tokenizer(smollm2)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    if not FOLDER.exists():
        pytest.skip("Gemma's tokenizer is not here; 'make test-real' fetches it")
    tokenizer = load_tokenizer(FOLDER)
    assert len(tokenizer) == 262_144
    return make_scorer(tmp_path_factory.mktemp("gemma"), tokenizer)


@pytest.fixture(scope="module")
def url(policy):
    """A server of the policy alone."""
    limits = ServingConfig(places=8, seconds=300.0)
    served = ServedModels(
        *policy, None, DecodingConfig(method="none"), limits, name="smollm2", reward_name="",
    )
    with running(Service(served, limits)) as (address, _):
        yield f"{address}/v1"


def run(engine, scorer, method):
    config = DecodingConfig(method=method, max_new_tokens=5, seed=1, **METHODS[method])
    results = list(generate_by(engine, PROMPTS[:1], build_method(config, scorer), config))
    for prompt, one in zip(PROMPTS, results, strict=False):
        assert one.error is None
        assert one.completion
        assert one.cost.rm_calls > 0
        if method == "best_of_n":
            [reward] = scorer.score([prompt], [one.completion])
            assert one.reward == pytest.approx(reward, abs=1e-4)
    return [one.completion for one in results]


@pytest.mark.parametrize("method", METHODS)
def test_both_engines(policy, scorer, url, method):
    here = run(TransformersEngine(*policy, Bounds(places=2)), scorer, method)
    there = run(OpenAIEngine.open(
        None, policy[1], DecodingConfig(batch_size=2), url=url,
        settings=policy[0].generation_config,
    ), scorer, method)
    if method == "args":
        assert there == here
        free = METHODS["args"] | {"weight": 0.0}
        config = DecodingConfig(method="args", max_new_tokens=5, seed=1, **free)
        engine = TransformersEngine(*policy, Bounds(places=2))
        plain = list(generate_by(engine, PROMPTS[:1], build_method(config, scorer), config))
        assert [one.completion for one in plain] != here
