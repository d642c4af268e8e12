"""Best of n from comparisons: exact laws, what is compared, what it costs, and models that do not
fit."""

import itertools
import json
import math
from collections import Counter
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from scipy.stats import chisquare
from typer.testing import CliRunner

from rewardsteer import RewardModel, Steerer
from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.default_method import method_of
from rewardsteer.decoding.fitting import methods_for
from rewardsteer.decoding.generate import build_method
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.pair_scorer import PairScorer
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.chat import save_policy
from tests.decoding.tables import TableEngine, TableScorer, answers, decode, toy_prompts
from tests.decoding.test_generate import make_policy
from tests.models.kinds.published import save_pair_encoder
from tests.serving.running import running

POLICY = [0.5, 0.3, 0.2]
LOGITS = [math.log(p) for p in POLICY]
# P(row is preferred to column): nobody wins against all, so that the order of a knockout matters.
BEATS = np.array([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]])


class TablePairs(PairScorer):
    """Knows how likely each of three one-token responses is preferred to each other."""

    kind = "table"

    def __init__(self, refused=()):
        super().__init__(SimpleNamespace(dtype="none"), None, name="table")
        self.asked, self.refused = [], refused

    def encode_pair(self, turns, first, second):
        raise NotImplementedError

    def first_wins(self, ids, mask):
        raise NotImplementedError

    def preferences(self, prompts, first, second, *, batch_size=16):
        self.asked += zip(first, second, strict=True)
        for pair in zip(first, second, strict=True):
            if pair in self.refused:
                raise DataError("Row 1 has 99 tokens, but table reads at most 9.")
        return np.array([BEATS[int(a), int(b)] for a, b in zip(first, second, strict=True)])


def config(**values):
    return DecodingConfig(method="tournament", top_k=0, max_new_tokens=1, **values)


def winner_of_all(some):
    """By the definition: mean probability against the others, the first of equals."""
    means = [
        np.mean([BEATS[a, b] for place, b in enumerate(some) if place != own])
        for own, a in enumerate(some)
    ]
    return some[int(np.argmax(np.round(means, 12)))]


def winner_of_knockout(some):
    best = some[0]
    for rival in some[1:]:
        best = best if BEATS[best, rival] >= 0.5 else rival
    return best


@pytest.mark.parametrize(
    ("form", "winner"), [("all", winner_of_all), ("knockout", winner_of_knockout)]
)
def test_the_winner_has_its_exact_law(form, winner):
    law = np.zeros(3)
    for some in itertools.product(range(3), repeat=4):
        law[winner(some)] += math.prod(POLICY[y] for y in some)
    settings = config(n=4, comparisons=form)
    found = answers(
        build_method(settings, TablePairs()), lambda y: LOGITS, settings, count=900, places=900
    )
    seen = Counter(y[0] for y in found)
    assert chisquare([seen[y] for y in range(3)], 900 * law).pvalue > 1e-3


def test_the_two_forms_have_different_laws():
    some = [list(itertools.product(range(3), repeat=4))] * 2
    won = [[winner(one) for one in every] for winner, every in
           zip((winner_of_all, winner_of_knockout), some, strict=True)]
    assert won[0] != won[1]


@pytest.mark.parametrize(("form", "count"), [("all", 10), ("knockout", 4)])
def test_each_pair_is_compared_once_and_equal_texts_never(form, count):
    settings, scorer = config(n=5, comparisons=form), TablePairs()
    engine = TableEngine(lambda y: LOGITS, 64)
    [(outcome, cost)] = decode(engine, build_method(settings, scorer), settings, toy_prompts())
    assert all(one != other for one, other in scorer.asked)
    assert len(scorer.asked) < count  # five draws of three tokens repeat some
    assert cost.rm_calls == len(scorer.asked)
    assert cost.rm_forwards == 2 * len(scorer.asked)
    assert cost.lm_calls == 5
    assert 0 <= outcome.reward <= 1


def test_the_reward_is_the_mean_chance_of_being_preferred():
    settings, scorer = config(n=2), TablePairs()
    engine = TableEngine(lambda y: LOGITS, 64)
    seen = decode(engine, build_method(settings, scorer), settings, toy_prompts(40))
    # A draw is at least as good as the other, and equal ones tie.
    assert {outcome.reward for outcome, _ in seen} <= {0.5, 0.7, 0.8, 0.9}
    assert len({outcome.reward for outcome, _ in seen}) > 2


def test_one_sample_is_the_policys():
    settings, scorer = config(n=1), TablePairs()
    engine = TableEngine(lambda y: LOGITS, 64)
    [(outcome, _)] = decode(engine, build_method(settings, scorer), settings, toy_prompts())
    assert outcome.reward is None
    assert scorer.asked == []


def test_a_pair_that_cannot_be_read_fails_its_prompt():
    settings = config(n=6)
    scorer = TablePairs(refused=[("0", "1"), ("1", "0")])
    engine = TableEngine(lambda y: LOGITS, 64)
    with pytest.raises(DataError, match=r"While judging a response to 0: Row 1 has 99 tokens"):
        decode(engine, build_method(settings, scorer), settings, toy_prompts())


# --- which models fit -----------------------------------------------------------------------------


def test_models_of_pairs_and_methods_of_rewards_do_not_mix():
    scalar = TableScorer(lambda y: 0.0, "scalar", 3)
    with pytest.raises(MismatchError, match=r"takes a model that compares .* best_of_n"):
        build_method(config(), scalar)
    with pytest.raises(MismatchError, match="with the method 'tournament'"):
        build_method(DecodingConfig(method="best_of_n"), TablePairs())
    with pytest.raises(ConfigError, match="greedy decoding gives the same one each time"):
        build_method(config(mode="greedy"), TablePairs())
    assert methods_for(TablePairs()) == ["tournament"]
    assert "tournament" not in methods_for(scalar)
    assert method_of(TablePairs()).name == "tournament"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("tournament")
    return save_policy(place / "policy", "llama3"), save_pair_encoder(place / "pairrm")


def test_it_is_the_default_of_a_model_of_pairs(folders, tmp_path):
    policy, pairs = folders
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "2+2?"}\n')
    done = CliRunner().invoke(app, [
        "generate", "--model", str(policy), "--reward-model", str(pairs), "--device", "cpu",
        "--prompts", str(tmp_path / "prompts.jsonl"), "--n", "3", "--max-new-tokens", "4",
        "--output", str(tmp_path / "out.jsonl"),
    ])
    assert done.exit_code == 0, done.output
    [line] = [json.loads(one) for one in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert line["method"] == "tournament"
    rm = RewardModel.from_pretrained(pairs, device="cpu")
    steerer = Steerer(str(policy), rm, device="cpu", n=3, max_new_tokens=4)
    [answer] = steerer.generate(["2+2?"])
    assert steerer.config.method == "tournament"
    assert 0 <= answer.reward <= 1


def test_other_methods_refuse_it_before_the_policy_loads(folders, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "2+2?"}\n')
    done = CliRunner().invoke(app, [
        "generate", "--model", str(tmp_path / "nothing"), "--reward-model", str(folders[1]),
        "--method", "best_of_n", "--prompts", str(tmp_path / "prompts.jsonl"),
        "--output", str(tmp_path / "out.jsonl"),
    ])
    assert done.exit_code == 2
    assert not (tmp_path / "out.jsonl").exists()


def test_the_server_answers_with_it_and_gives_no_rewards(folders):
    policy, tokenizer = make_policy("llama", eos_bias=1.0)
    limits = ServingConfig(places=8, seconds=60.0)
    scorer = load_scorer(folders[1], device="cpu", pairs=True)
    served = ServedModels(policy, tokenizer, scorer, config(n=3), limits, name="tiny")
    with running(Service(served, limits)) as (address, _):
        body = {"prompt": "2+2?", "max_tokens": 5, "method_settings": {"comparisons": "knockout"}}
        reply = httpx.post(f"{address}/v1/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        guidance = reply.json()["choices"][0]["guidance"]
        assert guidance["method"] == "tournament"
        assert guidance["cost"]["rm_calls"] <= 2
        names = {one["id"] for one in httpx.get(f"{address}/v1/models").json()["data"]}
        assert "tiny@tournament" in names
        assert "tiny@best_of_n" not in names
        reply = httpx.post(
            f"{address}/v1/rewards", json={"input": [{"prompt": "a", "completion": "b"}]}
        )
        assert reply.status_code == 400
        assert "compares two responses" in reply.json()["error"]["message"]
