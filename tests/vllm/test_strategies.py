"""Every strategy in vLLM: what the transformers engine answers where nothing is drawn, and exact
costs and ends where something is."""

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

import torch  # noqa: E402

from rewardsteer.data.template import Template  # noqa: E402
from rewardsteer.decoding.answer import answer  # noqa: E402
from rewardsteer.decoding.config import DecodingConfig  # noqa: E402
from rewardsteer.decoding.engines.vllm_engine import VllmEngine  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.decoding.generate import build_method, generate  # noqa: E402
from rewardsteer.decoding.policy import load_policy  # noqa: E402
from rewardsteer.decoding.prompts import Prepared  # noqa: E402
from rewardsteer.goals.goal_state import GoalState, Provenance  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from tests.fakes import character_tokenizer  # noqa: E402
from tests.vllm.models import LENGTH, make_requests, save_models  # noqa: E402

REQUESTS = make_requests(5, 30)
SHARED = {"max_new_tokens": 12, "seed": 3, "batch_size": 6, "top_k": 0}
STRATEGIES = {
    "best_of_n": {}, "majority_vote": {}, "speculative_rejection": {"decision_tokens": 2},
    "beam": {"beam": 1, "branches": 1, "step_tokens": 5, "step_separator": "a"},
    "goal_filter": {"drop_threshold": -0.1, "drop_start": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def llm(root):
    return start(
        str(root / "policy"), dtype="float32", enforce_eager=True, max_model_len=LENGTH,
        distributed_executor_backend="uni", max_num_seqs=8, num_gpu_blocks_override=64,
    )


def method_of(root, config):
    scorer = load_scorer(root / "args")
    width = scorer.hidden_size
    vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    goal = GoalState("good", vectors, Provenance(
        kind="mean", model_fingerprint=scorer.fingerprint
    ))
    return build_method(config, scorer, goal)


def run(llm, root, config):
    tokenizer = character_tokenizer()
    engine = VllmEngine(llm, tokenizer, places=config.batch_size)
    ready = [Prepared(one, one.prompt, one.prompt_ids) for one in REQUESTS]
    results = list(answer(
        engine, ready, method_of(root, config), config, Template(kind="text"), config.method
    ))
    assert not llm.llm_engine.has_unfinished_requests()
    return results


@pytest.mark.parametrize("name", STRATEGIES)
def test_where_nothing_is_drawn(llm, root, name):
    config = DecodingConfig(method=name, mode="greedy", n=1, **SHARED, **STRATEGIES[name])
    found = run(llm, root, config)
    known = generate(
        load_policy(root / "policy"), character_tokenizer(), REQUESTS, method_of(root, config),
        config, template=Template(kind="text"),
    )
    for one, other in zip(found, known, strict=True):
        assert one.error is None
        assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
        assert one.reward == pytest.approx(other.reward, abs=1e-4)
        assert one.cost.new_tokens == len(one.token_ids)


@pytest.mark.parametrize("name", STRATEGIES)
def test_draws_depend_on_the_seed_alone(llm, root, name):
    more = {"n": 4} | STRATEGIES[name] | ({"beam": 2, "branches": 2} if name == "beam" else {})
    config = DecodingConfig(method=name, temperature=1.5, **SHARED, **more)
    once, again = run(llm, root, config), run(llm, root, config.model_copy(
        update={"batch_size": 1}
    ))
    assert all(one.error is None for one in once)
    assert [one.token_ids for one in once] == [one.token_ids for one in again]
    assert sum(one.cost.lm_calls for one in once) > sum(one.cost.new_tokens for one in once)


def test_who_stops_listening_leaves_no_request(llm, root):
    config = DecodingConfig(method="best_of_n", n=3, **SHARED)
    tokenizer = character_tokenizer()
    engine = VllmEngine(llm, tokenizer, places=6)
    engine.stop_ids = frozenset()
    ready = [Prepared(one, one.prompt, one.prompt_ids) for one in REQUESTS]
    answers = answer(
        engine, ready, method_of(root, config), config, Template(kind="text"), "best_of_n"
    )
    next(answers)
    answers.close()
    assert not llm.llm_engine.has_unfinished_requests()
