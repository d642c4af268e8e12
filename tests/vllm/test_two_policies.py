"""A second policy that drafts as a second vLLM of one process, and likelihoods of given tokens."""

import asyncio
import json
import random
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer import Steerer  # noqa: E402
from rewardsteer.cli.main import app  # noqa: E402
from rewardsteer.data.template import Template  # noqa: E402
from rewardsteer.decoding.config import DecodingConfig  # noqa: E402
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine  # noqa: E402
from rewardsteer.decoding.engines.vllm_engine import VllmEngine  # noqa: E402
from rewardsteer.decoding.engines.vllm_requests import parameters  # noqa: E402
from rewardsteer.decoding.generate import build_method, generate, generate_by  # noqa: E402
from rewardsteer.decoding.policy import load_policy  # noqa: E402
from rewardsteer.decoding.sample import Stop  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from tests.decoding.requested_likelihoods import (  # noqa: E402
    BEFORE,
    CONTINUATIONS,
    PROMPT,
    check_found,
    of_all,
)
from tests.fakes import character_tokenizer  # noqa: E402
from tests.vllm.models import make_requests, save_models  # noqa: E402

REQUESTS = make_requests(4, 30)
TOKENIZER = character_tokenizer()
OPTIONS = {"dtype": "float32", "enforce_eager": True, "distributed_executor_backend": "uni",
           "num_gpu_blocks_override": 64}
SHARED = {"max_new_tokens": 12, "seed": 3, "batch_size": 6, "top_k": 0, "step_tokens": 4,
          "step_separator": ""}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engines(root):
    """The policy and a second one, started once."""
    config = DecodingConfig(**SHARED)
    found = [
        VllmEngine.open(str(root / name), TOKENIZER, config, **OPTIONS, max_model_len=64)
        for name in ("policy", "base")
    ]
    yield found
    for one in found:
        assert not one.llm.llm_engine.has_unfinished_requests()


def run(engines, root, config):
    engine, drafter = engines
    method = build_method(config, load_scorer(root / "args"), drafter=drafter)
    return list(generate_by(engine, REQUESTS, method, config, template=Template(kind="text")))


def known(root, config):
    small = TransformersEngine(load_policy(root / "base"), TOKENIZER)
    method = build_method(config, load_scorer(root / "args"), drafter=small)
    return list(generate(
        load_policy(root / "policy"), TOKENIZER, REQUESTS, method, config,
        template=Template(kind="text"),
    ))


def test_greedy_answers_are_those_of_the_transformers_engine(engines, root):
    rewards = sorted(
        one.reward for one in known(root, DecodingConfig(
            method="rsd", mode="greedy", accept_reward=-1e9, **SHARED
        ))
    )
    cases = [("rsd", {"accept_reward": threshold}) for threshold in (-1e9, rewards[2], 1e9)]
    cases += [("gsi", {"n": 1, "weight": 4.0, "accept_reward": rewards[2]})]
    seen = []
    for method, settings in cases:
        config = DecodingConfig(method=method, mode="greedy", **settings, **SHARED)
        found, right = run(engines, root, config), known(root, config)
        for one, other in zip(found, right, strict=True):
            assert one.error is None
            assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
            assert one.reward == pytest.approx(other.reward, abs=1e-4)
            assert one.cost.lm_calls == other.cost.lm_calls
            assert 0 < one.cost.draft_tokens <= one.cost.lm_tokens
        seen.append([one.token_ids for one in found])
    assert seen[0] != seen[1] != seen[2]


def test_steps_may_be_shorter_than_the_shortest_response(engines, root):
    config = DecodingConfig(
        method="rsd", mode="greedy", accept_reward=1e9, min_tokens=9, **SHARED
    )
    found, right = run(engines, root, config), known(root, config)
    assert [one.token_ids for one in found] == [one.token_ids for one in right]
    assert all(len(one.token_ids) >= 9 for one in found)


def test_tokens_that_the_other_policy_cannot_read_are_not_drawn():
    sample = SimpleNamespace(
        config=DecodingConfig(logit_bias={1: 2.0}), token_ids=[], stop=Stop(), top=None,
        log_probability=None, rng=random.Random(0), limit=4, ending=set(),
        guide=SimpleNamespace(scorer=None), engine=SimpleNamespace(readable=6), drawable=4,
    )
    assert parameters(sample, "p").logit_bias == {1: 2.0, 4: -100.0, 5: -100.0}
    sample.drawable = None
    assert parameters(sample, "p").logit_bias == {1: 2.0}


def test_draws_depend_on_the_seed_alone(engines, root):
    config = DecodingConfig(method="gsi", n=3, weight=2.0, accept_reward=0.0, **SHARED)
    once, again = run(engines, root, config), run(
        engines, root, config.model_copy(update={"batch_size": 1})
    )
    assert all(one.error is None for one in once)
    assert [one.token_ids for one in once] == [one.token_ids for one in again]
    # The policy reads every draft, prompts included.
    assert all(one.cost.lm_forwards > one.cost.lm_calls for one in once)


def test_likelihoods_of_given_tokens(engines, root):
    # Started by the tests before, or here.
    run(engines, root, DecodingConfig(method="gsi", n=1, **SHARED))

    async def asked():
        told = engines[0].likelihoods(PROMPT)
        found = await of_all(told)
        left = asyncio.create_task(told.of(BEFORE[1], CONTINUATIONS))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert not engines[0].llm.llm_engine.has_unfinished_requests()
        return found, told.cost

    found, cost = asyncio.run(asked())
    # Each as a whole, whatever the prefix cache holds.
    check_found(found, cost, load_policy(root / "policy"), 1e-4)


def test_who_stops_listening_leaves_no_request(engines, root):
    config = DecodingConfig(method="gsi", n=2, accept_reward=0.0, **SHARED)
    method = build_method(config, load_scorer(root / "args"), drafter=engines[1])
    answers = generate_by(
        engines[0], REQUESTS, method, config, template=Template(kind="text")
    )
    next(answers)
    answers.close()
    for one in engines:
        assert not one.llm.llm_engine.has_unfinished_requests()


def test_the_command_and_python(root, tmp_path):
    """Each starts both policies, with room for the longest row and what is drawn behind it."""
    settings = {"step_tokens": 4, "step_separator": "", "accept_reward": 0.0}
    config = DecodingConfig(
        method="gsi", mode="greedy", n=1, max_new_tokens=8, top_k=0, seed=0, **settings
    )
    small = TransformersEngine(load_policy(root / "base"), TOKENIZER)
    method = build_method(config, load_scorer(root / "args"), drafter=small)
    right = [one.token_ids for one in generate(
        load_policy(root / "policy"), TOKENIZER, ["ab", "Sum of 3"], method, config,
        template=Template(kind="text"),
    )]
    assert max(map(len, right)) == 8
    output = tmp_path / "answers.jsonl"
    done = CliRunner().invoke(app, [
        "generate", "--engine", "vllm", "--model", str(root / "policy"), "--draft-model",
        str(root / "base"), "--reward-model", str(root / "args"), "--method", "gsi", "--n", "1",
        "--prompt", "ab", "--prompt", "Sum of 3", "--output", str(output), "--greedy",
        "--max-new-tokens", "8", "--step-tokens", "4", "--step-separator", "", "--top-k", "0",
        "--set", "accept_reward=0", "--template", "text", "--dtype", "float32",
        *(word for name, value in OPTIONS.items() if name != "dtype"
          for word in ("--vllm-option", f"{name}={value}")),
    ])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["token_ids"] for line in output.open()] == right
    steerer = Steerer(
        root / "policy", root / "args", method="gsi", engine="vllm", draft_model=root / "base",
        template=Template(kind="text"), mode="greedy", n=1, max_new_tokens=8, top_k=0, **settings,
    )
    assert [one.token_ids for one in steerer.generate(["ab", "Sum of 3"])] == right
