"""Comparisons of methods with a second policy and of gates with a reward model of their own."""

import numpy as np
import pytest

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.divergence import response_kl
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from tests.evaluation.test_generation import world as world
from tests.fakes import tiny_causal_lm

REQUESTS = [Request(id=str(i), prompt=f"{i}+{i}=") for i in range(4)]
OPTIONS = {"max_new_tokens": 6, "batch_size": 3}
DRAFTED = {"step_tokens": 2, "step_separator": "", **OPTIONS}


@pytest.fixture(scope="module")
def small(world):
    return tiny_causal_lm(vocab_size=len(world[2]), hidden=16, seed=5)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("method", "settings"), [
    ("rsd", {"accept_reward": 0.0}), ("gsi", {"n": 2, "weight": 2.0, "accept_reward": 0.0}),
])
def test_a_second_policy_drafts(world, small, tmp_path, method, settings):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    config = DecodingConfig(method=method, **settings, **DRAFTED)
    entries = [
        Entry("none", DecodingConfig(method="none", **OPTIONS)),
        Entry("drafted", config, scorers["scalar"], drafter=small),
    ]
    judge = Judge(scorers["scalar"])
    summary = compare(entries, shared, REQUESTS, judge, tmp_path)
    found = read_records(tmp_path / "drafted.jsonl")
    drafter = TransformersEngine(small, tokenizer)
    alone = generate(
        policy, tokenizer, REQUESTS, build_method(config, scorers["scalar"], drafter=drafter),
        config,
    )
    sizes = [count(one) / count(policy) for one in (small, scorers["scalar"].reward_model)]
    for one in alone:
        record = found[one.id]
        cost = record.generation.cost
        assert record.generation.token_ids == one.token_ids
        assert cost.model_copy(update={"seconds": 0.0}) == one.cost.model_copy(
            update={"seconds": 0.0}
        )
        assert 0 < cost.draft_tokens <= cost.lm_tokens
        assert record.extra["equivalent_tokens"] == pytest.approx(
            cost.lm_tokens - cost.draft_tokens + sizes[0] * cost.draft_tokens
            + sizes[1] * cost.rm_tokens
        )
    assert summary["drafted"]["lm_tokens_per_token"] > 0
    # What is there is not generated again.
    lines = (tmp_path / "drafted.jsonl").read_text()
    (tmp_path / "drafted.jsonl").write_text("".join(lines.splitlines(keepends=True)[:2]))
    compare(entries, shared, REQUESTS, judge, tmp_path)
    again = read_records(tmp_path / "drafted.jsonl")
    assert [again[one].generation.token_ids for one in found] == [
        found[one].generation.token_ids for one in found
    ]


def test_equal_budgets(world, small, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entry = Entry(
        "rsd", DecodingConfig(method="rsd", accept_reward=0.0, **DRAFTED), scorers["scalar"],
        drafter=small,
    )
    found = compare(
        [entry], shared, REQUESTS, Judge(scorers["scalar"]), tmp_path,
        budget=Budget("tokens", 100),
    )["rsd"]
    assert found["draws"] > 1
    assert found["budget_used"] == pytest.approx(found["equivalent_tokens"])
    assert found["budget_used"] < 150


def test_a_reward_model_of_its_own_decides_for_a_gate(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    config = DecodingConfig(
        method="args", gate="kl", gate_threshold=1e-4, weight=3.0, top_k=4, **OPTIONS
    )
    entries = [
        Entry("own", config, scorers["scalar"]),
        Entry("scout", config, scorers["scalar"], scout=scorers["vocabulary"]),
    ]
    found = compare(
        entries, shared, REQUESTS, Judge(scorers["scalar"]), tmp_path, kl_prompts=2
    )
    records = read_records(tmp_path / "scout.jsonl")
    method = build_method(config, scorers["scalar"], scout=scorers["vocabulary"])
    alone = list(generate(policy, tokenizer, REQUESTS, method, config))
    for one in alone:
        cost = records[one.id].generation.cost
        assert records[one.id].generation.token_ids == one.token_ids
        assert 0 < cost.gate_tokens < cost.rm_tokens
        assert records[one.id].extra["equivalent_tokens"] == pytest.approx(
            cost.lm_tokens + (
                count(scorers["vocabulary"].reward_model) * cost.gate_tokens
                + count(scorers["scalar"].reward_model) * (cost.rm_tokens - cost.gate_tokens)
            ) / count(policy)
        )
    expected = np.mean([
        response_kl(
            policy, method, tokenizer(one.prompt)["input_ids"], one.token_ids, config, one.id
        )
        for one in alone[:2]
    ])
    assert found["scout"]["kl"] == pytest.approx(expected)
    assert read_records(tmp_path / "own.jsonl")["0"].generation.cost.gate_tokens == 0


def test_a_method_without_its_second_policy_is_refused(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    entry = Entry("rsd", DecodingConfig(method="rsd", **DRAFTED), scorers["scalar"])
    with pytest.raises(ConfigError, match="'rsd' needs a second policy"):
        compare([entry], shared, REQUESTS, Judge(scorers["scalar"]), tmp_path)
