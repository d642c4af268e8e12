"""Guided decoding inside vLLM against the transformers engine, token for token."""

from collections import Counter

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from vllm.exceptions import VLLMValidationError  # noqa: E402

from rewardsteer.models.scorer import Scorer  # noqa: E402
from tests.vllm.models import (  # noqa: E402
    LENGTH,
    PROCESSOR,
    REWARDS,
    WEIGHTS,
    expected,
    make_requests,
    save_models,
)

NEW = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def make_llm(root, **options):
    return vllm.LLM(
        str(root / "policy"), dtype="float32", enforce_eager=True, max_model_len=LENGTH,
        distributed_executor_backend="uni", disable_log_stats=True, **options,
    )


@pytest.fixture(scope="module")
def llm(root):
    """All reward models loaded; few tokens a step, so that long prompts are read in chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDSTEER_REWARD_MODEL", ":".join(str(root / name) for name in REWARDS))
        yield make_llm(
            root, logits_processors=[PROCESSOR], max_num_batched_tokens=80, max_num_seqs=64,
            enable_prefix_caching=True, num_gpu_blocks_override=18, block_size=32
        )


@pytest.fixture
def calls(monkeypatch):
    """Reward calls and engine steps since the test began."""
    seen = Counter()

    def count(name):
        original = getattr(Scorer, name)

        def counted(self, prefix_ids, *more):
            seen["calls"] += 1
            seen["rows"] += len(prefix_ids)
            return original(self, prefix_ids, *more)

        monkeypatch.setattr(Scorer, name, counted)

    count("next_token")
    count("candidates")
    return seen


def asked(weight, new=NEW, **more):
    extra = {"reward_weight": weight} | more
    return vllm.SamplingParams(temperature=0, max_tokens=new, extra_args=extra)


def run(llm, requests, parameters, *, every=1, many=4):
    """Token ids by request; ``many`` requests arrive every so many steps."""
    engine, done, steps = llm.llm_engine, {}, 0
    waiting = list(zip(requests, parameters, strict=True))
    while waiting or engine.has_unfinished_requests():
        if steps % every == 0:
            for request, params in waiting[:many]:
                engine.add_request(
                    request.id, {"prompt_token_ids": request.prompt_ids}, params
                )
            del waiting[:many]
        for output in engine.step():
            if output.finished:
                done[output.request_id] = list(output.outputs[0].token_ids)
        steps += 1
    return done


@pytest.mark.parametrize("name", REWARDS)
def test_equals_the_transformers_engine(llm, root, name, calls, monkeypatch):
    from vllm.v1.core.sched.scheduler import Scheduler

    preempt = Scheduler._preempt_request

    def counted(*arguments, **options):
        calls["preemptions"] += 1
        return preempt(*arguments, **options)

    monkeypatch.setattr(Scheduler, "_preempt_request", counted)
    requests = make_requests(64)
    weights = [WEIGHTS[number % 4] for number in range(64)]
    lengths = [NEW - number % 7 for number in range(64)]
    ks = [(5, 10)[number // 4 % 2] if REWARDS[name][0] == "scalar" else 10 for number in range(64)]
    parameters = [
        asked(weight, new, reward_model=name, **({"reward_top_k": k} if k != 10 else {}))
        for weight, new, k in zip(weights, lengths, ks, strict=True)
    ]
    found = run(llm, requests, parameters)
    assert calls["preemptions"] > 0
    right = {
        (weight, k): expected(root, name, requests, weight, NEW, k)
        for weight in WEIGHTS for k in set(ks)
    }
    for request, weight, new, k in zip(requests, weights, lengths, ks, strict=True):
        assert found[request.id] == right[weight, k][request.id][:new], (request.id, weight)
    guided = [right[1.5, ks[0]][request.id] != right[0.0, 10][request.id] for request in requests]
    assert sum(guided) > 50


@pytest.fixture(scope="module")
def roomy(root):
    """One reward model for each kind of head; memory for all requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDSTEER_REWARD_MODEL", f"{root / 'farma'}:{root / 'args'}")
        yield make_llm(root, logits_processors=[PROCESSOR], max_num_seqs=64)


@pytest.mark.parametrize("name", ["farma", "args"])
def test_one_reward_call_a_step_for_the_rows_that_ask(roomy, root, name, calls, monkeypatch):
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", f"{root / 'farma'}:{root / 'args'}")
    requests = make_requests(12)
    parameters = [
        asked(1.0, NEW, reward_model=name) if number % 3 else
        vllm.SamplingParams(temperature=0, max_tokens=NEW + 5)
        for number in range(12)
    ]
    found = run(roomy, requests, parameters, many=12)
    guided = [len(found[r.id]) for number, r in enumerate(requests) if number % 3]
    assert calls["calls"] == max(guided)
    assert calls["rows"] == sum(guided)


def test_nobody_asks(roomy, root, calls, monkeypatch):
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", f"{root / 'farma'}:{root / 'args'}")
    requests = make_requests(8)
    without = vllm.SamplingParams(temperature=0, max_tokens=NEW)
    with_zero = asked(0, reward_top_k=3, reward_model="args")
    plain = run(roomy, requests, [without] * 8)
    assert run(roomy, requests, [with_zero] * 8) == plain
    assert plain == expected(root, "farma", requests, 0.0, NEW)
    assert not calls


def test_sampling_follows_the_guided_distribution(roomy, root, monkeypatch):
    """The reward decides: with a large weight only the best-rewarded candidate is ever drawn."""
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", f"{root / 'farma'}:{root / 'args'}")
    [request] = make_requests(1)
    parameters = vllm.SamplingParams(
        temperature=1.0, max_tokens=4, n=1, seed=1,
        extra_args={"reward_weight": 1e4, "reward_model": "args", "reward_top_k": 5},
    )
    right = expected(root, "args", [request], 1e4, 4, 5)
    assert run(roomy, [request], [parameters]) == right


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"reward_weight": "1"}, "'reward_weight' must be a finite number, got '1'"),
        ({"reward_weight": True}, "'reward_weight'"),
        ({"reward_weight": float("nan")}, "'reward_weight'"),
        ({"reward_weight": float("inf")}, "'reward_weight'"),
        ({"reward_top_k": 5, "reward_model": "args"}, "'reward_weight'"),
        ({"reward_wieght": 1}, "Did you mean 'reward_weight'"),
        ({"reward_weight": 1, "reward_top_k": 0, "reward_model": "args"}, "1 to 256, got 0"),
        ({"reward_weight": 1, "reward_top_k": 257, "reward_model": "args"}, "1 to 256"),
        ({"reward_weight": 1, "reward_top_k": 2.0, "reward_model": "args"}, "whole number"),
        ({"reward_weight": 1, "reward_top_k": 5}, "scalar head"),
        ({"reward_weight": 1, "reward_model": "best"}, "one of 'farma', 'args', got 'best'"),
        ({"reward_weight": 1, "reward_name": 5}, "'reward_name'"),
    ],
)
def test_bad_values_are_refused_and_harm_no_one(roomy, root, monkeypatch, extra, message):
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", f"{root / 'farma'}:{root / 'args'}")
    bad = vllm.SamplingParams(temperature=0, max_tokens=2, extra_args=extra)
    with pytest.raises(VLLMValidationError, match=message):
        roomy.generate([{"prompt_token_ids": [5]}], bad, use_tqdm=False)
    [request] = make_requests(1)
    assert run(roomy, [request], [asked(0.5)]) == expected(root, "farma", [request], 0.5, NEW)
