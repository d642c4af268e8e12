"""Policy and reward model in threads of their own: the same answers at the same cost."""

import threading

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers import side_by_side
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.ensemble import RewardEnsemble
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.models.capabilities import supports_prefix_cache
from rewardsteer.models.scorer import Scorer
from tests.decoding.test_continuous import (
    EOS_BIAS,
    REQUESTS,
    make_guide,
    run,
    without_seconds,
)
from tests.decoding.test_generate import folders, make_policy, make_scorer  # noqa: F401


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def any_size(monkeypatch):
    """Models of any size read side by side, and of any two sizes."""
    monkeypatch.setattr(side_by_side, "_LEAST", 0)
    monkeypatch.setattr(side_by_side, "_UNEVEN", 100.0)


@pytest.fixture
def reading(monkeypatch):
    """Where and on how many threads the reward model reads."""
    seen, real = [], Scorer.next_token

    def read(self, *prefixes):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return real(self, *prefixes)

    monkeypatch.setattr(Scorer, "next_token", read)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "farma", "mode": "greedy"},
        {"method": "farma", "mode": "sample", "top_k": 0, "seed": 3},
        {"method": "genarm", "mode": "sample"},
    ],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_answers_and_costs_are_those_of_reading_in_turn(
    folders, kind, settings, any_size, reading, monkeypatch  # noqa: F811
):
    settings = settings | {"kind": kind, "batch_size": 4}
    together = run(folders, **settings)
    assert {name for name, _ in reading} == {"reward-model_0"}
    monkeypatch.setattr(side_by_side, "_LEAST", 2**40)
    reading.clear()
    assert [without_seconds(one) for one in together] == [
        without_seconds(one) for one in run(folders, **settings)
    ]
    assert {name for name, _ in reading} == {threading.current_thread().name}


def test_threads_are_shared_and_given_back(folders, any_size, reading):  # noqa: F811
    policy, tokenizer = make_policy()
    supports_prefix_cache(policy)  # tried beforehand: its forward passes are none of a generation
    own = []
    policy.register_forward_hook(lambda *_: own.append(torch.get_num_threads()))
    config = DecodingConfig(method="farma", max_new_tokens=3)
    guide = make_guide(config, folders)
    for _ in generate(policy, tokenizer, REQUESTS[:2], guide, config):
        assert torch.get_num_threads() == 4
    assert own == [2, 2, 2]
    assert [threads for _, threads in reading] == [2, 2, 2]


def test_several_reward_models(folders, any_size, reading, monkeypatch):  # noqa: F811
    def answers():
        policy, tokenizer = make_policy(eos_bias=EOS_BIAS["llama"])
        config = DecodingConfig(method="farma", mode="sample", max_new_tokens=8, batch_size=3)
        both = [make_scorer(folders[kind], "vocabulary") for kind in ("llama", "gpt_neox")]
        guide = build_method(config, RewardEnsemble(both, [1.0, -0.5]))
        found = generate(policy, tokenizer, REQUESTS, guide, config)
        return [without_seconds(one) for one in found]

    together = answers()
    # Two of three models of about one size get the larger share of four threads.
    assert {threads for _, threads in reading} == {3}
    monkeypatch.setattr(side_by_side, "_LEAST", 2**40)
    assert answers() == together


def test_an_error_of_the_reward_model_is_the_runs(folders, any_size):  # noqa: F811
    policy, tokenizer = make_policy()
    config = DecodingConfig(method="farma", max_new_tokens=4)
    guide = make_guide(config, folders)
    with torch.no_grad():
        guide.scorer.reward_model.carrier.get_input_embeddings().weight.fill_(float("nan"))
    results = list(generate(policy, tokenizer, REQUESTS[:2], guide, config))
    assert ["step 1 of row" in result.error for result in results] == [True, True]
    guide.scorer.next_token = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(generate(policy, tokenizer, REQUESTS[:2], guide, config))
    assert torch.get_num_threads() == 4


def test_an_error_of_the_policy_waits_for_the_reward_model(folders, any_size):  # noqa: F811
    policy, tokenizer = make_policy()
    begun, done = threading.Event(), threading.Event()
    config = DecodingConfig(method="farma", max_new_tokens=4)
    guide = make_guide(config, folders)
    real = guide.scorer.next_token

    def slow(*prefixes):
        begun.set()
        values = real(*prefixes)
        done.set()
        return values

    def fail(*_):
        assert begun.wait(30)
        raise RuntimeError("policy")

    guide.scorer.next_token = slow
    policy.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="policy"):
        list(generate(policy, tokenizer, REQUESTS[:2], guide, config))
    assert done.is_set()
    assert torch.get_num_threads() == 4


def reader_of(policy, tokenizer, guide):
    return type(TransformersEngine(policy, tokenizer)._open(guide)._reader).__name__


class TestInTurn:
    """What is read one after the other."""

    def check(self, folders, method="farma"):  # noqa: F811
        policy, tokenizer = make_policy()
        guide = make_guide(DecodingConfig(method=method), folders)
        return reader_of(policy, tokenizer, guide)

    def test_all_that_follows_would_be_read_together_but_for_the_reason(
        self, folders, any_size  # noqa: F811
    ):
        assert self.check(folders) == self.check(folders, "genarm") == "_Pair"

    def test_on_one_thread(self, folders, any_size):  # noqa: F811
        torch.set_num_threads(1)
        assert self.check(folders) == "PrefixReader"

    def test_where_the_reward_model_needs_the_policys_candidates(
        self, folders, any_size  # noqa: F811
    ):
        assert self.check(folders, "args") == "PrefixReader"
        assert self.check(folders, "none") == "PrefixReader"

    def test_under_autocast_which_holds_for_a_thread(self, folders, any_size):  # noqa: F811
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert self.check(folders) == "PrefixReader"

    def test_where_threads_have_one_number_for_all(
        self, folders, any_size, monkeypatch  # noqa: F811
    ):
        monkeypatch.setattr(side_by_side, "_threads_are_per_caller", lambda: False)
        assert self.check(folders) == "PrefixReader"

    def test_weights_of_both_models(self, folders, any_size):  # noqa: F811
        policy, tokenizer = make_policy()
        guide = make_guide(DecodingConfig(method="farma"), folders)
        guide.scorer.reward_model.base = policy
        assert reader_of(policy, tokenizer, guide) == "PrefixReader"

    def test_small_models(self, folders):  # noqa: F811
        assert self.check(folders) == "PrefixReader"


class Sized(torch.nn.Module):
    """So many MiB on some device."""

    def __init__(self, size, device="cpu"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(size, 2**18, device=device))


@pytest.mark.parametrize(
    ("threads", "policy", "rewards", "shares"),
    [
        (2, 100, [100], (1, 1)), (4, 100, [100], (2, 2)), (4, 300, [100], (3, 1)),
        (4, 100, [150, 150], (1, 3)), (16, 700, [100], (14, 2)), (3, 200, [100], (2, 1)),
        # No whole number of threads comes near an even end.
        (2, 300, [100], None), (2, 100, [150], None), (3, 100, [100], None),
        (4, 1000, [40], None), (2, 31, [31], None), (1, 100, [100], None),
    ],
)
def test_threads_go_by_size(threads, policy, rewards, shares, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert side_by_side._share(Sized(policy), [Sized(one) for one in rewards]) == shares


def test_another_device_has_threads_of_its_own():
    assert side_by_side._share(Sized(100), [Sized(100)]) == (2, 2)
    assert side_by_side._share(Sized(100), [Sized(100, "meta")]) is None
    assert side_by_side._share(Sized(100, "meta"), [Sized(100)]) is None
