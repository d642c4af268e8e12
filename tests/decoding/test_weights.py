"""Schedules and target KL against plain computations; weight 0 is the policy alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import chisquare

from rewardsteer.configuration import load_config
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.guides.args import Args
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.kl_strength import kl_strength
from rewardsteer.decoding.guides.weights import Weight, floor_unknown
from rewardsteer.decoding.methods import adds_rewards
from rewardsteer.decoding.processor import GuideProcessor
from rewardsteer.errors import ConfigError
from tests.decoding.tables import TableScorer
from tests.decoding.test_generate import PROMPTS, folders, make_policy, make_scorer  # noqa: F401
from tests.decoding.test_processor import library
from tests.decoding.test_toy_exactness import LENGTH, SEQUENCES, V, random_rewards, run

# Method → the head of its reward model and what that was trained with.
GUIDED = {
    "farma": ("vocabulary", "max_constraint"), "genarm": ("vocabulary", "autoregressive"),
    "args": ("scalar", "bradley_terry"), "pargs": ("scalar", "partial"),
    "cd": ("scalar", "partial"),
}


def guided_by(folders, method, kind="llama"):  # noqa: F811
    return make_scorer(folders[kind], *GUIDED[method])


def divergence(p, q):
    """KL(p ‖ q) of two distributions, in nats."""
    kept = p > 0
    return float((p[kept] * (np.log(p[kept]) - np.log(q[kept]))).sum())


def plain_strength(logits, pull, target):
    """The weight with a KL from softmax(logits), by bisection over the definition."""

    def error(strength):
        tilted = logits + strength * pull
        tilted = np.exp(tilted - tilted.max())
        base = np.exp(logits - logits.max())
        return divergence(tilted / tilted.sum(), base / base.sum()) - target

    high = 1.0
    while error(high) < 0 and high < 1e12:
        high *= 2
    return brentq(error, 0, high, xtol=1e-13, rtol=1e-13) if error(high) > 0 else high


def plain_weight(config, step):
    """w at a step as the settings describe it."""
    if config.weight_schedule == "constant":
        return config.weight
    done = step / (config.max_new_tokens - 1)
    if config.weight_schedule == "linear":
        return config.weight * (1 - done) + config.weight_end * done
    return config.weight_end + (config.weight - config.weight_end) * (
        1 + math.cos(math.pi * done)
    ) / 2


@torch.no_grad()
def plain_greedy(policy, scorers, weights, prompt_ids, config, stop_ids):
    """Guided decoding from the equations: batch 1, no cache, candidates one by one."""
    row, generated = list(prompt_ids), []
    while len(generated) < config.max_new_tokens:
        logits = policy(torch.tensor([row])).logits[0, -1].double()
        tokens = torch.arange(len(logits))
        near = config.target_kl or config.max_kl
        if config.method in ("args", "pargs", "cd") or (near and config.top_k):
            tokens = logits.topk(config.top_k).indices
        total = torch.zeros(len(tokens), dtype=torch.float64)
        for scorer, weight in zip(scorers, weights, strict=True):
            if config.method in ("farma", "genarm"):
                rewards = scorer.reward_model.carrier(torch.tensor([row])).logits[0, -1].double()
                if config.method == "genarm":
                    rewards = rewards.log_softmax(-1)
                total += weight * rewards[tokens]
                continue
            for place, token in enumerate(tokens.tolist()):
                ids = torch.tensor([[*row, token]])
                states = scorer.reward_model.backbone(input_ids=ids).last_hidden_state
                total[place] += weight * scorer.reward_model.carrier.score(states)[0, -1, 0]
        w = plain_weight(config, len(generated))
        if near:
            pull = (math.copysign(1, w) * total).numpy() / config.temperature
            found = plain_strength(logits[tokens].numpy() / config.temperature, pull, near)
            w = math.copysign(found if config.target_kl else min(found, abs(w)), w)
        token = int(tokens[(logits[tokens] + w * total).argmax()])
        row.append(token)
        generated.append(token)
        if token in stop_ids:
            break
    return generated


CONTROLS = [
    {"weight": 2.0, "weight_schedule": "linear", "weight_end": -1.0},
    {"weight": 0.0, "weight_schedule": "cosine", "weight_end": 3.0},
    {"target_kl": 0.4, "temperature": 0.7},
    {"target_kl": 0.4, "weight": -2.0},
    {"max_kl": 0.2, "weight": 1.5, "temperature": 0.7},
    {"max_kl": 0.3, "weight": 3.0, "weight_schedule": "linear", "weight_end": 0.0},
]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("method", GUIDED)
def test_batched_and_cached_equals_the_plain_loop(folders, method, control):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(
        method=method, mode="greedy", top_k=5, max_new_tokens=8, batch_size=3, **control
    )
    scorer = guided_by(folders, method)
    results = generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config)
    stop_ids = {tokenizer.eos_token_id}
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)
        assert result.token_ids == plain_greedy(policy, [scorer], [1.0], ids, config, stop_ids)


@pytest.mark.parametrize("mode", ["greedy", "sample"])
@pytest.mark.parametrize("control", [
    {"weight": 0.0},
    {"weight": 0.0, "weight_schedule": "cosine", "weight_end": 0.0},
    {"weight": 0.0, "target_kl": 0.5},
    {"target_kl": 0.0},
    {"max_kl": 0.0},
    {"weight": 0.0, "max_kl": 1.0},
])
@pytest.mark.parametrize("method", GUIDED)
def test_weight_zero_is_the_policy_alone(folders, method, control, mode):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=2.0)

    def answers(name, scorer, **more):
        config = DecodingConfig(
            method=name, mode=mode, top_k=5, temperature=0.7, seed=4, max_new_tokens=15, **more
        )
        method = build_method(config, scorer)
        return [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]

    assert answers(method, guided_by(folders, method), **control) == answers("none", None)


@pytest.mark.parametrize("control", [CONTROLS[0], CONTROLS[2], CONTROLS[4]])
def test_inside_transformers_generate(folders, control):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(method="farma", mode="greedy", top_k=5, max_new_tokens=8, **control)
    method = build_method(config, guided_by(folders, "farma"))
    ours = [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    theirs = library(policy, tokenizer, processor, max_new_tokens=8, do_sample=False)
    assert [b[: len(a)] for a, b in zip(ours, theirs, strict=True)] == ours


class TestSchedule:
    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [("linear", [2.0, 1.25, 0.5, -0.25, -1.0]),
         ("cosine", [2.0, 0.5 + 1.5 * math.sqrt(0.5), 0.5, 0.5 - 1.5 * math.sqrt(0.5), -1.0])],
    )
    def test_goes_from_the_first_token_to_the_last(self, schedule, expected):
        weight = Weight(DecodingConfig(
            weight=2.0, weight_schedule=schedule, weight_end=-1.0, max_new_tokens=5
        ))
        assert [weight.at(step) for step in range(5)] == pytest.approx(expected)
        assert weight.at(9) == pytest.approx(-1.0)

    def test_of_a_single_token_is_its_beginning(self):
        config = DecodingConfig(weight=2, weight_schedule="linear", weight_end=0, max_new_tokens=1)
        assert Weight(config).at(0) == 2.0

    def test_rows_of_different_ages_share_a_batch(self):
        weight = Weight(DecodingConfig(
            weight=1.0, weight_schedule="linear", weight_end=0.0, max_new_tokens=3
        ))
        guided = weight.guided(torch.zeros(3, 2), torch.tensor([[1.0, 2.0]] * 3), [0, 2, 1])
        assert guided.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.5, 1.0]]


def tables(seed, rows, size, spread):
    draws = np.random.default_rng(seed)
    logits = torch.tensor(draws.normal(size=(rows, size)) * 3)
    return logits.log_softmax(-1), torch.tensor(draws.normal(size=(rows, size)) * spread)


class TestTargetKl:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 10_000), st.sampled_from([2, 7, 300]),
        st.sampled_from([1e-3, 1.0, 1e3]), st.floats(1e-5, 3.0),
    )
    def test_strength_is_that_of_plain_bisection(self, seed, size, spread, target):
        base, pull = tables(seed, 4, size, spread)
        pull -= pull.amax(dim=1, keepdim=True)
        found = kl_strength(base, pull, target)
        for row in range(4):
            p, r = base[row].numpy(), pull[row].numpy()
            limit = -p[r.argmax()]
            if target >= limit:
                assert found[row] == math.inf
                continue
            q = p + float(found[row]) * r
            q = np.exp(q - q.max()) / np.exp(q - q.max()).sum()
            assert divergence(q, np.exp(p)) == pytest.approx(target, rel=1e-6, abs=1e-9)
            if target < 0.9 * limit:
                assert found[row] == pytest.approx(plain_strength(p, r, target), rel=1e-4)

    @pytest.mark.parametrize(("method_top_k", "top_k"), [(30, 6), (30, 0), (6, 6)])
    @pytest.mark.parametrize("sign", [1.0, -0.3])
    def test_what_is_drawn_from_has_the_target(self, method_top_k, top_k, sign):
        logits, rewards = tables(0, 16, method_top_k, 2.0)
        logits, rewards = logits.float() + 5, rewards.float() - 40
        config = DecodingConfig(top_k=top_k, temperature=0.6, target_kl=0.25, weight=sign)
        guided = Weight(config).guided(logits, rewards, [0] * 16)
        met = 0
        for row in range(16):
            kept = logits[row].topk(top_k or method_top_k).indices
            others = torch.ones(method_top_k, dtype=torch.bool)
            others[kept] = False
            assert bool(guided[row, others].isneginf().all())
            p = (guided[row, kept].double() / 0.6).softmax(0).numpy()
            q = (logits[row, kept].double() / 0.6).softmax(0).numpy()
            best = (sign * rewards[row, kept]).argmax()
            if -math.log(q[best]) > 0.25:
                assert divergence(p, q) == pytest.approx(0.25, rel=1e-4)
                met += 1
            else:
                assert p[best] == pytest.approx(1.0)
        assert met > 8, "most rows should be able to move that far"

    def test_a_limit_lowers_large_weights_and_leaves_small_ones(self):
        logits, rewards = tables(1, 32, 9, 1.0)
        logits, rewards = logits.float(), rewards.float()
        limited = Weight(DecodingConfig(max_kl=0.3, weight=1.2)).guided(logits, rewards, [0] * 32)
        free = Weight(DecodingConfig(weight=1.2)).guided(logits, rewards, [0] * 32)
        lowered = 0
        for row in range(32):
            p, q = (x[row].double().softmax(0).numpy() for x in (limited, logits))
            alone = free[row].double().softmax(0).numpy()
            if divergence(alone, q) > 0.3:
                assert divergence(p, q) == pytest.approx(0.3, rel=1e-4)
                lowered += 1
            else:
                assert p == pytest.approx(alone, rel=1e-5)
        assert 4 < lowered < 28, "some rows should be limited and some not"

    def test_a_target_out_of_reach_leaves_the_best_rewarded_alone(self):
        logits = torch.tensor([[5.0, 0.0, 1.0, 0.0]])
        rewards = torch.tensor([[1.0, 0.0, 1.0, 0.5]])
        guided = Weight(DecodingConfig(target_kl=1.0)).guided(logits, rewards, [0])
        assert guided.tolist() == [[5.0, -math.inf, 1.0, -math.inf]]

    def test_equal_rewards_and_masked_tokens(self):
        logits = torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, -math.inf]])
        rewards = torch.tensor([[2.0, 2.0, 2.0], [0.0, 1.0, 99.0]])
        guided = Weight(DecodingConfig(target_kl=0.1)).guided(logits, rewards, [0, 0])
        assert guided[0].tolist() == logits[0].tolist()
        p, q = guided[1].softmax(0).double().numpy(), logits[1].softmax(0).double().numpy()
        assert divergence(p, q) == pytest.approx(0.1, rel=1e-5)
        assert p[2] == 0

    def test_sampling_has_the_exact_distribution(self):
        """Sequences drawn at a target KL, counted against every sequence's probability."""
        rewards = random_rewards(3)
        scorer = TableScorer(lambda p: rewards[(*p, *[0] * (LENGTH - len(p)))], "scalar", V)
        base = [0.3, 0.0, -0.3]
        config = DecodingConfig(top_k=2, max_new_tokens=LENGTH, target_kl=0.2, temperature=0.8)
        batch = run(Args(scorer, config), config, lambda prefix: base, rows=4000)
        expected = {}
        for y in SEQUENCES:
            expected[y] = 1.0 * len(batch)
            for i in range(LENGTH):
                logits = np.array(base[:2]) / 0.8
                pull = np.array([scorer.reward((*y[:i], v)) for v in range(2)]) / 0.8
                limit = math.log(np.exp(logits).sum()) - logits[pull.argmax()]
                w = 1e9 if limit <= 0.2 else plain_strength(logits, pull, 0.2)
                tilted = np.exp(logits + w * (pull - pull.max()))
                expected[y] *= 0 if y[i] == 2 else tilted[y[i]] / tilted.sum()
        seen = dict.fromkeys(SEQUENCES, 0)
        for row in batch:
            seen[tuple(row.token_ids)] += 1
        possible = [y for y in SEQUENCES if expected[y] > 0]
        assert sum(seen[y] for y in possible) == len(batch)
        assert chisquare([seen[y] for y in possible], [expected[y] for y in possible]).pvalue > 1e-3


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_unknown_tokens_are_never_favoured(weight):
    pull = torch.tensor([[3.0, -1.0, 0.0], [3.0, -1.0, 0.0]]) * weight
    known = torch.tensor([[True, True, False], [False, False, False]])
    least = min(3.0 * weight, -1.0 * weight)
    assert floor_unknown(pull, known).tolist() == [
        [3.0 * weight, -1.0 * weight, least], [0.0, 0.0, 0.0]
    ]


def test_a_negative_weight_does_not_favour_tokens_beyond_the_reward_model():
    scorer = TableScorer(lambda p: float(p[-1]), "vocabulary", V)
    config = DecodingConfig(weight=-1.0, mode="greedy", max_new_tokens=1)
    [row] = run(Farma(scorer, config), config, lambda prefix: [0.0] * V + [-1.0])
    assert row.token_ids == [0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_schedule": "linear"}, "weight_end go together"),
        ({"weight_end": 0.0}, "weight_end go together"),
        ({"weight_schedule": "sine", "weight_end": 0.0}, "weight_schedule"),
        ({"weight_schedule": "cosine", "weight_end": 0.0, "target_kl": 1.0}, "leaves no room"),
        ({"target_kl": 1.0, "max_kl": 1.0}, "leaves no room"),
        ({"target_kl": -0.1}, "target_kl"),
        ({"max_kl": -0.1}, "max_kl"),
    ],
)
def test_contradictory_settings(values, words):
    with pytest.raises(ConfigError, match=words):
        load_config(DecodingConfig, values)


def test_which_methods_add_rewards():
    assert all(adds_rewards(name) for name in GUIDED)
    assert not any(adds_rewards(name) for name in ("none", "best_of_n", "beam"))
