"""Comparisons whose policy is behind an OpenAI-compatible address: this package's own server."""

import json

import pytest

from rewardsteer import RewardModel, Steerer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.choice import EngineChoice
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from tests.decoding.completions_server import TOKENIZER, CompletionsServer
from tests.decoding.test_generate import make_policy, make_scorer
from tests.fakes import save_tiny
from tests.serving.running import make_service, running

REQUESTS = [Request(id=str(number), prompt=f"{number}+{number}=") for number in range(6)]
OPTIONS = {"mode": "greedy", "max_new_tokens": 8, "batch_size": 4}
PLAIN = Template(kind="text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama", seed=7)


@pytest.fixture(scope="module")
def scorer(folder):
    return make_scorer(folder, "scalar", "", PLAIN)


@pytest.fixture(scope="module")
def policy():
    return make_policy("llama", eos_bias=1.0)


@pytest.fixture(scope="module")
def url(folder, policy):
    service = make_service(folder, head=None, method="none", policy=policy[0], places=16)
    with running(service) as (address, _):
        yield f"{address}/v1"


def over(url, tokenizer=None, **options):
    return ComparedPolicy(
        EngineChoice("openai", None, {"url": url, **options}, given_tokenizer=tokenizer)
    )


def entries(scorer):
    return [
        Entry("none", DecodingConfig(method="none", **OPTIONS)),
        Entry("args", DecodingConfig(method="args", top_k=4, weight=2.0, **OPTIONS), scorer),
        Entry("best", DecodingConfig(method="best_of_n", n=3, max_new_tokens=8), scorer),
    ]


def test_figures_are_those_of_a_policy_in_this_process(url, policy, scorer, tmp_path):
    judge = Judge(scorer)
    shared = over(url, policy[1])
    found = compare(entries(scorer), shared, REQUESTS, judge, tmp_path / "far", template=PLAIN)
    near = ComparedPolicy.loaded(*policy)
    right = compare(entries(scorer), near, REQUESTS, judge, tmp_path / "near", template=PLAIN)
    for label in ("none", "args"):
        for name in ("reward", "reward_gain", "surprise", "length", "rm_calls_per_token"):
            assert found[label][name] == pytest.approx(right[label][name], abs=1e-5), name
        own, other = (
            read_records(tmp_path / place / f"{label}.jsonl") for place in ("far", "near")
        )
        assert own.keys() == other.keys()
        for key in own:
            assert own[key].generation.token_ids == other[key].generation.token_ids
    assert found["best"]["reward"] >= found["none"]["reward"] - 5
    assert found["best"]["lm_calls_per_token"] > 1
    # The sizes of the policy and of the reward model relative to it are not known here.
    assert "equivalent_tokens" in found["none"]
    assert "equivalent_tokens" not in found["args"]
    # What was generated is not generated again, and what was judged is not judged again.
    lines = (tmp_path / "far" / "best.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "far" / "best.jsonl").write_text("".join(lines[:2]))
    drawn = (tmp_path / "far" / "draws" / "best.jsonl").read_text()
    again = compare(entries(scorer), shared, REQUESTS, judge, tmp_path / "far", template=PLAIN)
    assert again == found
    assert (tmp_path / "far" / "draws" / "best.jsonl").read_text() == drawn


def test_equal_budgets_of_calls(url, policy, scorer, tmp_path):
    sampled = Entry("args", DecodingConfig(
        method="args", top_k=4, max_new_tokens=4, batch_size=4
    ), scorer)
    found = compare(
        [sampled], over(url, policy[1]), REQUESTS, Judge(scorer), tmp_path, template=PLAIN,
        budget=Budget("calls", 60),
    )["args"]
    assert found["draws"] > 1
    records = read_records(tmp_path / "args.jsonl").values()
    assert all(one.extra["budget_used"] == one.generation.cost.rm_calls for one in records)


@pytest.mark.parametrize(("method", "options", "said"), [
    ("farma", {}, "lets methods act on next-token scores, which openai .*does not do"),
    ("rsd", {}, "'rsd' needs a second policy"),
    ("args", {"gate": "top1", "gate_threshold": 0.5}, "leave out the gate"),
    ("args", {"budget": Budget("tokens", 100)}, "the sizes of the policies of 'one' are not known"),
    ("args", {"kl_prompts": 2}, "whole next-token distributions, which the engine openai"),
])
def test_what_the_engine_cannot_do_is_refused_first(
    url, policy, scorer, folder, tmp_path, method, options, said
):
    how = {name: options.pop(name) for name in ("budget", "kl_prompts") if name in options}
    if method == "farma":
        scorer = make_scorer(folder, "vocabulary", "", PLAIN)
    several = [
        Entry("none", DecodingConfig(method="none", **OPTIONS)),
        Entry("one", DecodingConfig(method=method, **OPTIONS, **options), scorer),
    ]
    judge = Judge(make_scorer(folder, "scalar", "", PLAIN))
    with pytest.raises(ConfigError, match=said):
        compare(several, over(url, policy[1]), REQUESTS, judge, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_a_server_that_gives_texts_alone(scorer, tmp_path):
    """It writes prompts itself; the judge reads texts."""
    several = [
        Entry("none", DecodingConfig(max_new_tokens=8)),
        Entry("best", DecodingConfig(method="best_of_n", n=2, max_new_tokens=8), scorer),
    ]
    with CompletionsServer() as server:
        # With a tokenizer it gives token ids, but echoes no prompt, so likelihoods are not known.
        with_ids = compare(
            several, over(server.url, TOKENIZER), REQUESTS, Judge(scorer), tmp_path / "with_ids"
        )
        assert "reward" in with_ids["none"]
        assert "surprise" not in with_ids["none"]
        found = compare(several, over(server.url), REQUESTS, Judge(scorer), tmp_path)
        ids = [Request(id="ids", prompt="", prompt_ids=[5, 6])]
        with pytest.raises(MismatchError, match=r"'ids' is given as token ids.*gives texts alone"):
            compare(several, over(server.url), ids, Judge(scorer), tmp_path / "ids")
    assert "surprise" not in found["none"]
    records = read_records(tmp_path / "best.jsonl")
    for one in records.values():
        [reward] = scorer.score([one.generation.prompt], [one.generation.completion])
        assert one.metrics["reward"] == pytest.approx(float(reward), abs=1e-5)


def test_in_python(url, policy, scorer, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-hidden")
    steerer = Steerer(
        None, RewardModel(scorer), method="best_of_n", engine="openai", base_url=url,
        tokenizer=policy[1], template=PLAIN, n=2, max_new_tokens=8,
        engine_options={"key_env": "OTHER_KEY"},
    )
    found = steerer.compare(
        [one.prompt for one in REQUESTS], ["none", "best_of_n"], judge=RewardModel(scorer),
        output_dir=tmp_path / "out",
    )
    assert found["best_of_n"]["count"] == len(REQUESTS)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    with pytest.raises(ConfigError, match=r"'cards' needs an engine that .*openai does not do"):
        steerer.compare(["a"], {"cards": {"reward_target": 1.0}}, judge=RewardModel(scorer))
    with pytest.raises(ConfigError, match="engine_options are for the engines vllm and openai"):
        Steerer(policy[0], tokenizer=policy[1], engine_options={"key_env": "OTHER_KEY"})
