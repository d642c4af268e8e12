"""Equal budgets: how many draws, which is kept, what it costs; own rewards against plain loops."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.ensemble import RewardEnsemble
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.budget import (
    Budget,
    Sizes,
    best_within,
    equivalent_tokens,
    relative_sizes,
)
from rewardsteer.evaluation.own_rewards import own_rewards
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.records import Cost, Generation
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

REQUESTS = [Request(id=name, prompt=name) for name in "abcde"]


class World:
    """A sampler and a reward model whose numbers follow from prompt and seed; counts what it is
    asked."""

    def __init__(self, rewarded_by_the_method=False):
        self.asked = []
        self.rewarded = rewarded_by_the_method

    def number(self, name, seed, what):
        return (ord(name) * 31 + seed * 17 + len(what) * 7) % 13

    def generation(self, config, name):
        tokens = 1 + self.number(name, config.seed, "tokens")
        return Generation(
            id=name, prompt=name, completion=f"{name}{config.seed}", method="m", seed=config.seed,
            reward=self.reward(name, config.seed) if self.rewarded else None,
            cost=Cost(new_tokens=tokens, lm_tokens=10 + tokens, rm_tokens=tokens, rm_calls=tokens),
        )

    def reward(self, name, seed):
        return float(self.number(name, seed, "a reward"))

    def sample(self, config, requests):
        for request in requests:
            self.asked.append((request.id, config.seed, config.n))
            yield self.generation(config, request.id)

    def rate(self, generations):
        cost = Cost(rm_calls=1, rm_forwards=1, rm_tokens=4)
        return [(self.reward(one.id, one.seed), cost) for one in generations]


def reference(world, budget, size, config, *, chooses=True, choosing=1):
    """The rule, spelled out with exact numbers."""
    def spent(name, seed):
        cost = world.generation(config.model_copy(update={"seed": seed}), name).cost
        if budget.unit == "calls":
            return Fraction(cost.rm_calls + choosing)
        return Fraction(cost.lm_tokens) + Fraction(size) * (cost.rm_tokens + 4 * choosing)

    mean = sum(spent(request.id, config.seed) for request in REQUESTS) / len(REQUESTS)
    draws = max(1, math.floor(Fraction(budget.per_prompt) / mean)) if chooses else 1
    kept = []
    for request in REQUESTS:
        seeds = range(config.seed, config.seed + draws)
        best = max(seeds, key=lambda seed: world.reward(request.id, seed))
        kept.append((f"{request.id}{best}", sum(spent(request.id, seed) for seed in seeds)))
    return draws, kept


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["calls", "tokens"]), st.integers(1, 200), st.sampled_from([0.25, 0.5, 1.0, 3]),
    st.integers(0, 5),
)
def test_draws_choice_and_charge_follow_the_rule(tmp_path_factory, unit, amount, size, seed):
    world, budget = World(), Budget(unit, amount)
    config = DecodingConfig(method="farma", batch_size=2, seed=seed)
    place = tmp_path_factory.mktemp("draws") / "m.jsonl"
    best, draws = best_within(
        budget, Sizes(size), config, REQUESTS, place, sample=world.sample, rate=world.rate
    )
    expected, kept = reference(world, budget, size, config)
    assert draws == expected
    assert [one.completion for one in best] == [name for name, _ in kept]
    for one, (_, spent) in zip(best, kept, strict=True):
        # Where there is nothing to choose among, choosing is not charged.
        unread = 0 if draws > 1 else (1 if unit == "calls" else 4 * size)
        assert budget.spent(one.cost, Sizes(size)) == pytest.approx(float(spent) - unread)
        alone = world.generation(config.model_copy(update={"seed": one.seed}), one.id)
        assert one.cost.new_tokens == alone.cost.new_tokens


def test_a_budget_of_exactly_m_responses_buys_m(tmp_path):
    class Even(World):
        def generation(self, config, name):
            return super().generation(config, name).model_copy(
                update={"cost": Cost(new_tokens=1, seconds=0.1)}
            )

        def rate(self, generations):
            return [(0.0, Cost()) for _ in generations]

    world = Even()
    _, draws = best_within(
        Budget("seconds", 0.3), Sizes(1.0), DecodingConfig(method="farma"), REQUESTS,
        tmp_path / "m", sample=world.sample, rate=world.rate,
    )
    assert draws == 3  # 0.3 // 0.1 is 2


def test_best_of_n_draws_one_at_a_time_and_pays_for_its_choice_once(tmp_path):
    world, budget = World(rewarded_by_the_method=True), Budget("tokens", 90)
    config = DecodingConfig(method="best_of_n", n=8)

    def refuse(generations):
        raise AssertionError("the method has asked its reward model already")

    best, draws = best_within(
        budget, Sizes(0.5), config, REQUESTS, tmp_path / "m", sample=world.sample, rate=refuse
    )
    expected, kept = reference(world, budget, 0.5, config, choosing=0)
    assert draws == expected > 1
    assert [one.completion for one in best] == [name for name, _ in kept]
    assert {n for _, _, n in world.asked} == {1}
    assert budget.spent(best[0].cost, Sizes(0.5)) == pytest.approx(float(kept[0][1]))


@pytest.mark.parametrize(("config", "rated"), [
    (DecodingConfig(method="none"), False), (DecodingConfig(method="args", mode="greedy"), True),
])
def test_without_a_choice_a_method_answers_once(tmp_path, config, rated):
    world = World()
    best, draws = best_within(
        Budget("tokens", 1e6), Sizes(1.0), config, REQUESTS, tmp_path / "m", sample=world.sample,
        rate=world.rate if rated else None,
    )
    assert draws == 1
    assert len(world.asked) == len(REQUESTS)
    assert [one.cost for one in best] == [world.generation(config, r.id).cost for r in REQUESTS]


def test_resume_draws_what_is_missing_and_nothing_else(tmp_path):
    config, budget = DecodingConfig(method="farma", batch_size=2), Budget("calls", 30)
    whole, again = World(), World()
    expected = best_within(
        budget, Sizes(1.0), config, REQUESTS, tmp_path / "m", sample=whole.sample, rate=whole.rate
    )
    lines = (tmp_path / "m").read_text().splitlines(keepends=True)
    assert len(lines) == len(whole.asked) == expected[1] * len(REQUESTS)
    (tmp_path / "m").write_text("".join(lines[:7]) + lines[7][:50])
    assert expected == best_within(
        budget, Sizes(1.0), config, REQUESTS, tmp_path / "m", sample=again.sample, rate=again.rate
    )
    assert again.asked == whole.asked[7:]
    (tmp_path / "m").write_text('{"other": 1}\n')
    with pytest.raises(DataError, match="no draw"):
        best_within(
            budget, Sizes(1.0), config, REQUESTS, tmp_path / "m", sample=again.sample,
            rate=again.rate,
        )


def test_units_and_refusals():
    cost = Cost(lm_tokens=10, rm_tokens=6, rm_calls=3, seconds=0.25)
    assert equivalent_tokens(cost, Sizes(0.5)) == 13
    assert [Budget(unit, 1).spent(cost, Sizes(0.5)) for unit in ("tokens", "seconds", "calls")] == [
        13, 0.25, 3
    ]
    with pytest.raises(ConfigError, match="tokens, seconds, calls"):
        Budget("minutes", 1)
    for amount in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="above 0"):
            Budget("tokens", amount)


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    tokenizer = character_tokenizer()
    made = {}
    for name, kind, objective, seed in (
        ("scalar", "scalar", "bradley_terry", 1), ("other", "scalar", "partial", 2),
        ("farma", "vocabulary", "bradley_terry+max_constraint", 3),
        ("genarm", "vocabulary", "autoregressive", 4),
    ):
        base = save_tiny(folder / name, seed=seed)
        made[name] = Scorer(
            RewardModel.from_base(base, HeadConfig(kind=kind)), tokenizer, Template(),
            objective=objective,
        )
    return made


def answers(tokenizer):
    texts = {"a": ("What?", "Nothing."), "b": ("1+1=", "2"), "c": ("Hello there", " to you too")}
    prompts = {name: tokenizer(prompt)["input_ids"] for name, (prompt, _) in texts.items()}
    generations = [
        Generation(id=name, prompt=prompt, completion=text, method="m",
                   token_ids=tokenizer(text)["input_ids"])
        for name, (prompt, text) in texts.items()
    ]
    return prompts, generations


@pytest.mark.parametrize("name", ["scalar", "farma"])
def test_own_reward_is_that_of_the_whole_response(scorers, name):
    scorer = scorers[name]
    prompts, generations = answers(scorer.tokenizer)
    rated = own_rewards(scorer, prompts, 2)(generations)
    for one, (reward, cost) in zip(generations, rated, strict=True):
        closed = scorer.close_response(one.token_ids)
        [alone] = scorer.score_ids([prompts[one.id]], [closed])
        assert reward == pytest.approx(alone, abs=1e-5)
        assert (cost.rm_calls, cost.rm_forwards) == (1, 1)
        assert cost.rm_tokens == len(prompts[one.id]) + len(closed)
        assert cost.seconds > 0
        assert (cost.lm_tokens, cost.new_tokens) == (0, 0)


def test_own_reward_of_log_probabilities_is_their_sum(scorers):
    scorer = scorers["genarm"]
    prompts, generations = answers(scorer.tokenizer)
    rated = own_rewards(scorer, prompts, 2)(generations)
    for one, (reward, _) in zip(generations, rated, strict=True):
        prefix, total = list(prompts[one.id]), 0.0
        for token in scorer.close_response(one.token_ids):
            ids = torch.tensor([prefix])
            rewards = scorer.next_token(ids, torch.ones_like(ids))[0]
            total += float(rewards.log_softmax(0)[token])
            prefix.append(token)
        assert reward == pytest.approx(total, abs=1e-4)


def test_several_reward_models_add_up_by_weight(scorers):
    pair = [scorers["scalar"], scorers["other"]]
    prompts, generations = answers(pair[0].tokenizer)
    rated = own_rewards(RewardEnsemble(pair, [1.0, -0.5]), prompts, 2)(generations)
    alone = [own_rewards(one, prompts, 2)(generations) for one in pair]
    for both, first, second in zip(rated, *alone, strict=True):
        assert both[0] == pytest.approx(first[0] - 0.5 * second[0], abs=1e-6)
        assert both[1].rm_tokens == first[1].rm_tokens + second[1].rm_tokens
        assert both[1].rm_calls == 2


def test_sizes_count_parameters(scorers):
    policy = tiny_causal_lm(vocab_size=len(scorers["scalar"].tokenizer), hidden=64)
    count = sum(p.numel() for p in policy.parameters())
    sizes = {
        name: sum(p.numel() for p in one.reward_model.parameters()) / count
        for name, one in scorers.items()
    }
    assert relative_sizes(count) == Sizes()
    assert relative_sizes(count, scorers["farma"]).scorer == pytest.approx(sizes["farma"])
    assert 0 < sizes["scalar"] < sizes["farma"] < 1
    several = RewardEnsemble([scorers["farma"], scorers["scalar"]], [1.0, 1.0])
    assert relative_sizes(count, several).scorer == pytest.approx(
        (sizes["farma"] + sizes["scalar"]) / 2
    )
    found = relative_sizes(count, drafter=count / 4, scout=scorers["farma"])
    assert found == pytest.approx((0, 0.25, sizes["farma"]))
    # Behind an address.
    unknown = relative_sizes(math.nan, scorers["farma"])
    assert math.isnan(equivalent_tokens(Cost(lm_tokens=2, rm_tokens=1), unknown))
    assert equivalent_tokens(Cost(lm_tokens=2), relative_sizes(math.nan)) == 2


def test_each_model_reads_at_its_size():
    cost = Cost(lm_tokens=100, draft_tokens=60, rm_tokens=50, gate_tokens=30)
    assert equivalent_tokens(cost, Sizes(2.0, 0.25, 0.5)) == 40 + 15 + 40 + 15
