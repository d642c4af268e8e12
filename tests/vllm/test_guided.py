"""Guided decoding inside vLLM against the transformers engine, token for token."""

import shutil
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from vllm.exceptions import VLLMValidationError  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.sample.logits_processor import build_logitsprocs  # noqa: E402

from rewardsteer.decoding.engines.vllm_model import RewardGuidedForCausalLM  # noqa: E402
from rewardsteer.decoding.engines.vllm_plugin import PROCESSOR  # noqa: E402
from rewardsteer.decoding.engines.vllm_settings import guided_by  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.decoding.requests import Request  # noqa: E402
from tests.vllm.models import (  # noqa: E402
    LENGTH,
    WEIGHTS,
    expected,
    make_requests,
    save_models,
)

NEW = 24
NAMES = ("farma", "genarm")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def make_llm(root, rewards=(), weight=0.0, **options):
    settings = {"max_num_seqs": 64, "num_gpu_blocks_override": 128} | options
    if rewards:
        settings["hf_overrides"] = guided_by([root / name for name in rewards], weight)
    return start(
        str(root / "policy"), dtype="float32", enforce_eager=True, max_model_len=LENGTH,
        distributed_executor_backend="uni", disable_log_stats=True, **settings,
    )


@pytest.fixture(scope="module")
def llm(root):
    """Several reward models; few tokens a step, so that long prompts are read in chunks, and room
    for few rows, so that some are set aside."""
    return make_llm(
        root, NAMES, max_num_batched_tokens=80, enable_prefix_caching=True,
        num_gpu_blocks_override=18, block_size=32,
    )


@pytest.fixture
def calls(monkeypatch):
    """Products of reward heads, the rows in them, and what vLLM did since the test began."""
    seen, original = Counter(), RewardGuidedForCausalLM.reward_logits

    def counted(self, place, rows):
        rewards = original(self, place, rows)
        seen["calls"] += 1
        seen["rows"] += len(rewards)
        return rewards

    monkeypatch.setattr(RewardGuidedForCausalLM, "reward_logits", counted)
    preempt, schedule = Scheduler._preempt_request, Scheduler.schedule

    def preempting(*arguments, **options):
        seen["preemptions"] += 1
        return preempt(*arguments, **options)

    def scheduling(self, *arguments, **options):
        planned = schedule(self, *arguments, **options)
        for name in planned.num_scheduled_tokens:
            request = self.requests[name]
            seen["parts of prompts"] += request.num_computed_tokens < request.num_prompt_tokens
        return planned

    monkeypatch.setattr(Scheduler, "_preempt_request", preempting)
    monkeypatch.setattr(Scheduler, "schedule", scheduling)
    return seen


def asked(weight, new=NEW, **more):
    extra = {"reward_weight": weight} | more
    return vllm.SamplingParams(temperature=0, max_tokens=new, extra_args=extra)


def run(llm, requests, parameters, *, many=4, calls=None):
    """Outputs by request, of which ``many`` arrive at every step; with counted calls, no step may
    have more than one of each reward model."""
    engine, done = llm.llm_engine, {}
    waiting = list(zip(requests, parameters, strict=True))
    calls = Counter() if calls is None else calls
    while waiting or engine.has_unfinished_requests():
        for request, params in waiting[:many]:
            engine.add_request(request.id, {"prompt_token_ids": request.prompt_ids}, params)
        del waiting[:many]
        before = calls["calls"]
        for output in engine.step():
            if output.finished:
                done[output.request_id] = output
                calls["cached tokens"] += output.num_cached_tokens or 0
        calls["steps"] += 1
        calls["most a step"] = max(calls["most a step"], calls["calls"] - before)
    return done


def tokens(done):
    return {name: list(output.outputs[0].token_ids) for name, output in done.items()}


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_transformers_engine(llm, root, name, calls):
    count = 256 if name == "farma" else 64
    requests = make_requests(count)
    weights = [WEIGHTS[number % 4] for number in range(count)]
    lengths = [NEW - number % 7 for number in range(count)]
    parameters = [
        asked(weight, new, reward_model=name) for weight, new in zip(weights, lengths, strict=True)
    ]
    found = tokens(run(llm, requests, parameters, calls=calls))
    assert min(calls[what] for what in ("preemptions", "parts of prompts", "cached tokens")) > 0
    assert calls["most a step"] == 1
    right = {weight: expected(root, name, requests, weight, NEW) for weight in WEIGHTS}
    for request, weight, new in zip(requests, weights, lengths, strict=True):
        assert found[request.id] == right[weight][request.id][:new], (request.id, weight)
    assert sum(right[1.5][one.id] != right[0.0][one.id] for one in requests) > 50


def test_requests_that_are_aborted_leave_the_others_alone(llm, root):
    requests, engine = make_requests(16), llm.llm_engine
    right = expected(root, "farma", requests, 1.5, NEW)
    for request in requests:
        prompt = {"prompt_token_ids": request.prompt_ids}
        engine.add_request(request.id, prompt, asked(1.5))
    done, gone = {}, [request.id for request in requests[::3]]
    for step in range(10_000):
        if not engine.has_unfinished_requests():
            break
        if step == 6:
            engine.abort_request(gone)
        done |= {one.request_id: one for one in engine.step() if one.finished}
    found = tokens(done)
    assert set(found) == {one.id for one in requests} - set(gone)
    assert found == {name: right[name] for name in found}


@pytest.fixture(scope="module")
def roomy(root):
    """Memory for all requests."""
    return make_llm(root, NAMES, **LOGITS)


def test_without_a_prefix_cache_steps_that_nobody_asks_about_run_the_policy_alone(root):
    llm, requests = make_llm(root, NAMES, enable_prefix_caching=False), make_requests(12)
    right = {weight: expected(root, "farma", requests, weight, NEW) for weight in (0.0, 1.5)}

    def forwards(parameters):
        """Of the reward models, of the policy, and whether texts are right."""
        llm.apply_model(_count)
        found = tokens(run(llm, requests, parameters))
        [(reward, policy)] = llm.apply_model(lambda model: tuple(model.counted.values()))
        for request, one in zip(requests, parameters, strict=True):
            weight = (one.extra_args or {}).get("reward_weight", 0.0)
            assert found[request.id] == right[weight][request.id]
        return reward, policy

    plain = [vllm.SamplingParams(temperature=0, max_tokens=NEW)] * 12
    reward, policy = forwards([asked(1.5)] * 12)
    assert reward == policy
    reward, policy = forwards(plain)
    assert (reward, policy > 0) == (0, True)
    reward, policy = forwards([asked(1.5), *plain[1:]])
    assert 0 < reward < policy


def _count(model):
    """Count the forward passes of the first reward model and of the policy from now on."""
    model.counted = {"reward": 0, "policy": 0}
    for name, one in (("reward", model.parts[0].model), ("policy", model.policy)):
        one.forward = partial(_counted, model.counted, name, partial(type(one).forward, one))


def _counted(counted, name, forward, *arguments, **options):
    counted[name] += 1
    return forward(*arguments, **options)


@pytest.fixture(scope="module")
def harmed(root, tmp_path_factory):
    """A policy with a special token of its own, and a reward model whose rewards are so large that
    a large weight makes them infinite; requests that say nothing are guided."""
    folder = tmp_path_factory.mktemp("harmed")
    tokenizer = AutoTokenizer.from_pretrained(root / "policy")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    policy = AutoModelForCausalLM.from_pretrained(root / "policy")
    policy.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    shutil.copytree(root / "farma", folder / "farma")
    weights = load_file(folder / "farma" / "model.safetensors")
    weights["lm_head.weight"] *= LARGE
    save_file(weights, folder / "farma" / "model.safetensors", {"format": "pt"})
    return make_llm(folder, ["farma"], 0.5 / LARGE)


LARGE, TOOL = 1e25, 79


# Kept to the end of the module: vLLM takes down what all of a process share with any of them.
@pytest.fixture(scope="module")
def unguided(root):
    return make_llm(root, **LOGITS)


LOGITS = {"logprobs_mode": "processed_logits", "max_logprobs": -1}


def test_weight_0_is_the_policy_alone_bit_by_bit(roomy, unguided):
    """Beside guided rows, against a vLLM that knows no reward model."""
    requests = make_requests(24)
    same = {"temperature": 0, "max_tokens": NEW, "ignore_eos": True, "logprobs": -1}
    alone = vllm.SamplingParams(**same)
    extras = [{"reward_weight": 0}, {"reward_weight": 1.5}, None, {"reward_weight": -1.0}]
    mixed = [vllm.SamplingParams(**same, extra_args=extras[n % 4]) for n in range(24)]
    plain = run(unguided, requests, [alone] * 24)
    beside = run(roomy, requests, mixed)
    for number, request in enumerate(requests):
        one, other = (done[request.id].outputs[0] for done in (plain, beside))
        logits = [[{i: v.logprob for i, v in step.items()} for step in o.logprobs]
                  for o in (one, other)]
        assert (logits[0] == logits[1]) == (number % 2 == 0), number
        assert len(logits[0][0]) == 79


@pytest.mark.parametrize("name", NAMES)
def test_one_reward_call_a_step_for_the_rows_that_ask(roomy, name, calls):
    requests = make_requests(12)
    parameters = [
        asked(1.0, NEW, reward_model=name) if number % 3 else
        vllm.SamplingParams(temperature=0, max_tokens=NEW + 5)
        for number in range(12)
    ]
    found = tokens(run(roomy, requests, parameters, many=12, calls=calls))
    guided = [len(found[r.id]) for number, r in enumerate(requests) if number % 3]
    assert calls["calls"] == max(guided) < calls["steps"]
    assert calls["rows"] == sum(guided)
    assert calls["most a step"] == 1


def test_two_reward_models_are_asked_once_each(roomy, root, calls):
    requests, names = make_requests(8), NAMES
    parameters = [asked(1.0, NEW, reward_model=names[number % 2]) for number in range(8)]
    found = tokens(run(roomy, requests, parameters, many=8, calls=calls))
    assert calls["most a step"] == 2
    for number, request in enumerate(requests):
        right = expected(root, names[number % 2], [request], 1.0, NEW)
        assert found[request.id] == right[request.id]


def test_nobody_asks(roomy, root, calls):
    requests = make_requests(8)
    without = vllm.SamplingParams(temperature=0, max_tokens=NEW)
    with_zero = asked(0, reward_model="genarm")
    plain = tokens(run(roomy, requests, [without] * 8, calls=calls))
    assert tokens(run(roomy, requests, [with_zero] * 8, calls=calls)) == plain
    assert plain == expected(root, "farma", requests, 0.0, NEW)
    assert calls["calls"] == calls["most a step"] == 0


def test_sampling_follows_the_guided_distribution(roomy, root):
    """The reward decides: with a large weight only the best-rewarded token is ever drawn."""
    [request] = make_requests(1)
    parameters = vllm.SamplingParams(
        temperature=1.0, max_tokens=4, n=1, seed=1, extra_args={"reward_weight": 1e4},
    )
    right = expected(root, "farma", [request], 1e4, 4)
    assert tokens(run(roomy, [request], [parameters])) == right


@pytest.mark.parametrize("name", NAMES)
def test_tokens_that_vllm_forbids_stay_forbidden(roomy, name):
    [request], allowed = make_requests(1), [5, 9, 20]
    parameters = vllm.SamplingParams(
        temperature=0, max_tokens=8, allowed_token_ids=allowed, ignore_eos=True,
        extra_args={"reward_weight": 50.0, "reward_model": name},
    )
    found = tokens(run(roomy, [request], [parameters]))[request.id]
    assert len(found) == 8
    assert set(found) <= set(allowed)


def test_vllm_itself_refuses_speculative_decoding():
    config = SimpleNamespace(speculative_config=object())
    with pytest.raises(ValueError, match="not supported when speculative decoding is enabled"):
        build_logitsprocs(config, torch.device("cpu"), False, False, [PROCESSOR])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"reward_weight": "1"}, "'reward_weight' must be a finite number, got '1'"),
        ({"reward_weight": True}, "'reward_weight'"),
        ({"reward_weight": float("nan")}, "'reward_weight'"),
        ({"reward_weight": float("inf")}, "'reward_weight'"),
        ({"reward_weight": 1, "reward_top_k": 5}, "Unknown argument 'reward_top_k'"),
        ({"reward_wieght": 1}, "Did you mean 'reward_weight'"),
        ({"reward_weight": 1, "reward_model": "best"}, "one of .*'genarm'.*, got 'best'"),
        ({"reward_weight": 1, "reward_name": 5}, "'reward_name'"),
    ],
)
def test_bad_values_are_refused_and_harm_no_one(roomy, root, extra, message):
    bad = vllm.SamplingParams(temperature=0, max_tokens=2, extra_args=extra)
    with pytest.raises(VLLMValidationError, match=message):
        roomy.generate([{"prompt_token_ids": [5]}], bad, use_tqdm=False)
    [request] = make_requests(1)
    found = tokens(run(roomy, [request], [asked(0.5)]))
    assert found == expected(root, "farma", [request], 0.5, NEW)


def test_a_request_that_cannot_be_guided_harms_no_one(harmed, root, caplog):
    """An id that only the policy knows, rewards that are no numbers."""
    fine = make_requests(30)[:6]
    strange = [
        Request(id="tool", prompt="", prompt_ids=[10, TOOL, 12]),
        Request(id="infinite", prompt="", prompt_ids=[10, 11, 12]),
    ]
    ban = {"logit_bias": {TOOL: -100}, "temperature": 0, "max_tokens": NEW}
    usual = vllm.SamplingParams(**ban)
    plain = vllm.SamplingParams(**ban, extra_args={"reward_weight": 0})
    large = vllm.SamplingParams(**ban, extra_args={"reward_weight": 1e20, "reward_name": "N"})
    alone = tokens(run(harmed, fine, [usual] * 6))
    unguided = tokens(run(harmed, [*fine, *strange], [plain] * 8))
    assert alone != {one.id: unguided[one.id] for one in fine}
    requests = [fine[0], strange[0], fine[1], *fine[2:5], strange[1], fine[5]]
    parameters = [large if one.id == "infinite" else usual for one in requests]
    beside = tokens(run(harmed, requests, parameters, many=3))
    assert {one.id: beside[one.id] for one in fine} == alone
    assert beside["tool"] != unguided["tool"]
    assert beside["infinite"] == unguided["infinite"]
    [line] = [line for line in caplog.messages if "goes on without its reward model" in line]
    assert "The request N goes on" in line
    assert "NaN or infinite" in line
    assert harmed.apply_model(lambda model: list(model.failed)) == [["N"]]
    assert tokens(run(harmed, fine, [plain] * 6)) == {one.id: unguided[one.id] for one in fine}


def test_tokens_that_only_the_policy_knows(harmed, root):
    """What the reward model reads in their place, and that guidance never favours them."""
    [known] = harmed.apply_model(lambda model: model.parts[0].known)
    assert known.size == TOOL
    [one] = make_requests(1)
    request = one.model_copy(update={"prompt_ids": [10, TOOL, 12]})
    twin = one.model_copy(update={"prompt_ids": [10, known.stand_in, 12]})
    allowed = {"temperature": 0, "max_tokens": 1, "allowed_token_ids": [20, TOOL]}
    for weight in (1e6 / LARGE, -1e6 / LARGE):
        extra = {"extra_args": {"reward_weight": weight}}
        found = tokens(run(harmed, [request], [vllm.SamplingParams(**allowed, **extra)]))
        assert found[request.id] != [TOOL]
    choices = {"temperature": 0, "max_tokens": 1, "extra_args": {"reward_weight": 1e6 / LARGE}}
    parameters = [vllm.SamplingParams(**choices)]
    assert tokens(run(harmed, [request], parameters)) == tokens(run(harmed, [twin], parameters))
