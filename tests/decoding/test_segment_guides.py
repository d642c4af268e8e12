"""cards, speculative_rejection and goal_filter: batched with caches against the plain loops."""

import re

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.goals.calibration import (
    PositionCalibration,
    Range,
    load_calibration,
    save_calibration,
)
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.decoding import segments
from tests.decoding.test_generate import make_policy
from tests.fakes import character_tokenizer, save_tiny

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who? 12 9", "1 2"]
REQUESTS = [Request(id=f"r{i}", prompt=prompt) for i, prompt in enumerate(PROMPTS)]
SHARED = {"max_new_tokens": 13, "seed": 4}
CARDS = SHARED | {
    "method": "cards", "reward_target": 1.2, "acceptance": 0.4, "entropy_threshold": 2.7,
    "segment_min": 2, "segment_tokens": 5, "max_rejections": 3, "top_k": 0,
}
REJECTION = SHARED | {
    "method": "speculative_rejection", "n": 6, "decision_tokens": 2, "reject_share": 0.4,
    "top_k": 20,
}
FILTER = SHARED | {
    "method": "goal_filter", "n": 6, "drop_threshold": -0.12, "drop_start": 2, "top_k": 0
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Policies, tokenizers and reward models by kind; most rows end before their limit."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for kind in ("llama", "gpt2"):
        folder = save_tiny(root / kind, kind, seed=7)
        policy, tokenizer = make_policy(kind, eos_bias=1.5)
        torch.manual_seed(3)
        model = RewardModel.from_base(folder, HeadConfig(kind="scalar")).eval()
        for append_eos in (True, False):
            scorer = Scorer(model, character_tokenizer(), Template(append_eos=append_eos))
            found[kind, append_eos] = policy, tokenizer, scorer
    return found


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    place = tmp_path_factory.mktemp("calibration") / "c.json"
    save_calibration(PositionCalibration(ranges=[
        Range(start=0, similarities=[-0.5, 0.5], probabilities=[0.2, 0.9]),
        Range(start=4, similarities=[-0.1, 0.1], probabilities=[0.0, 1.0]),
    ]), place)
    return place


def make_goal(width=32, **values):
    vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    return GoalState("good", vectors, Provenance(kind="mean", model_fingerprint=""), **values)


def run(parts, settings, requests=REQUESTS, **more):
    policy, tokenizer, scorer = parts
    config = DecodingConfig(**{"batch_size": 7, **settings, **more})
    method = build_method(config, scorer, make_goal())
    return list(generate(policy, tokenizer, requests, method, config, template=Template()))


def naive_of(parts, settings):
    policy, tokenizer, scorer = parts
    return segments.Naive(
        policy, scorer, DecodingConfig(**settings), {tokenizer.eos_token_id}, make_goal()
    )


def text_with(tokenizer):
    return lambda prompt, tokens: tokenizer.decode(tokens, skip_special_tokens=True)


def without_seconds(result):
    return result.model_copy(update={
        "cost": result.cost.model_copy(update={"seconds": 0.0}),
        "reward": result.reward and round(result.reward, 3),
    })


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("more", [
    {}, {"acceptance": 0.0, "reward_share": 1.0}, {"segment_min": 1, "entropy_threshold": 0.0},
    {"entropy_threshold": 99.0, "top_k": 5, "temperature": 0.7, "reward_target": 3.0},
])
def test_cards_equals_the_plain_loop(models, kind, more):
    parts = models[kind, True]
    settings = CARDS | more
    if settings["acceptance"] == 0:
        settings["acceptance"] = 1e-9
    naive = naive_of(parts, settings)
    rejected = 0
    for request, result in zip(REQUESTS, run(parts, settings), strict=True):
        prompt = parts[1].encode(request.prompt)
        tokens, drawn = segments.cards(naive, prompt, request.id)
        assert result.token_ids == tokens
        judged = naive.closed(tokens)
        assert result.reward == pytest.approx(naive.reward([*prompt, *judged]), abs=1e-4)
        assert result.cost.lm_calls == drawn
        assert result.cost.new_tokens == len(tokens)
        rejected += drawn - len(tokens)
    assert rejected > 5


@pytest.mark.parametrize("append_eos", [True, False])
@pytest.mark.parametrize(("kind", "more"), [
    ("llama", {}), ("gpt2", {}), ("llama", {"reject_share": 0.9}), ("llama", {"n": 1}),
    ("llama", {"decision_tokens": 50}),
])
def test_speculative_rejection_equals_the_plain_loop(models, kind, more, append_eos):
    parts = models[kind, append_eos]
    naive = naive_of(parts, REJECTION | more)
    for request, result in zip(REQUESTS, run(parts, REJECTION | more), strict=True):
        prompt = parts[1].encode(request.prompt)
        tokens, reward, drawn = segments.speculative_rejection(naive, prompt, request.id)
        assert result.token_ids == tokens
        assert result.reward == pytest.approx(reward, abs=1e-4)
        assert result.cost.lm_calls == drawn


FILTERS = [
    {}, {"drop_rule": "patience", "drop_patience": 2, "drop_threshold": 0.1},
    {"drop_rule": "probability", "drop_threshold": 0.3}, {"drop_threshold": 2.0, "drop_start": 0},
    {"drop_rule": "none"},
]
# Of the plain loop, the same under all rules.
SAMPLES: dict = {}
STOPS = [{}, {"vote_stop": "esc", "vote_window": 2}, {"vote_stop": "adaptive",
                                                     "vote_confidence": 0.7}]


@pytest.mark.parametrize("stop", STOPS, ids=lambda one: one.get("vote_stop", "all"))
@pytest.mark.parametrize("more", FILTERS, ids=["below", "patience", "probability", "all", "none"])
def test_goal_filter_equals_the_plain_loop(models, calibration, more, stop):
    parts = models["llama", bool(stop)]
    settings = FILTER | more | stop | {"calibration": str(calibration)}
    naive, told = naive_of(parts, settings), load_calibration(calibration)
    naive.samples = SAMPLES
    drawn_in_all = whole = 0
    for request, result in zip(REQUESTS, run(parts, settings), strict=True):
        prompt = parts[1].encode(request.prompt)
        tokens, drawn, begun = segments.goal_filter(
            naive, prompt, request.id, text_with(parts[1]), told
        )
        assert result.token_ids == tokens
        assert result.cost.lm_calls == drawn
        drawn_in_all += drawn
        whole += sum(len(naive.sample(prompt, request.id, k)) for k in range(6))
        if more.get("drop_rule") == "none":
            assert result.cost.rm_tokens == 0
            assert result.cost.lm_tokens == drawn + begun * (len(prompt) - 1)
    # Under the highest threshold all are dropped, so all go on.
    everything = "drop_start" in more or (more.get("drop_rule") == "none" and not stop)
    assert drawn_in_all <= whole
    assert (drawn_in_all == whole) == everything or more.get("drop_rule") == "none"


@pytest.mark.parametrize("settings", [
    CARDS, REJECTION, FILTER, FILTER | {"drop_threshold": 0.05, "vote_stop": "esc",
                                        "vote_window": 2},
], ids=["cards", "rejection", "filter", "esc"])
def test_a_prompt_is_what_it_is_alone(models, settings):
    """Answers and costs, whatever shares the batch."""
    parts = models["llama", True]
    together = {one.id: without_seconds(one) for one in run(parts, settings)}
    for requests, places in ((REQUESTS[::-1], 13), (REQUESTS[2:4], 6), (REQUESTS, 64)):
        for result in run(parts, settings, requests, batch_size=places):
            assert without_seconds(result).model_dump() == together[result.id].model_dump()


def test_without_rejections_or_rules_nothing_changes(models):
    parts = models["llama", True]
    plain = run(parts, SHARED | {"method": "none", "top_k": 0})
    for settings in (
        CARDS | {"max_rejections": 0}, CARDS | {"reward_target": -1e9, "reward_share": 1.0},
        FILTER | {"n": 1, "drop_rule": "none"}, REJECTION | {"n": 1, "top_k": 0},
    ):
        for one, other in zip(plain, run(parts, settings), strict=True):
            assert one.token_ids == other.token_ids
            assert one.cost.lm_tokens == other.cost.lm_tokens


def test_rejected_segments_are_taken_back_not_read_again(models):
    """The policy reads each drawn token at most once, and one more a rejection."""
    for result, request in zip(run(models["llama", True], CARDS), REQUESTS, strict=True):
        cost, prompt = result.cost, len(request.prompt)
        most = cost.rm_calls  # no more rejections than judgements
        assert prompt + cost.lm_calls - 1 <= cost.lm_tokens + most
        # A proposal that is taken back was read once, and is read again.
        assert cost.lm_tokens <= prompt + cost.lm_calls + most + cost.new_tokens
        assert cost.rm_forwards == cost.rm_calls


def test_the_reward_model_reads_each_token_once(models):
    parts = models["llama", True]
    for request, result in zip(
        REQUESTS, run(parts, FILTER | {"n": 3, "drop_threshold": -1.0}), strict=True
    ):
        assert result.cost.rm_tokens == 3 * len(request.prompt) + result.cost.lm_calls
        assert result.cost.rm_calls == result.cost.lm_calls
    for request, result in zip(REQUESTS, run(parts, REJECTION), strict=True):
        # Never what was dropped is closed by end-of-text; what is long enough may be.
        spare = result.cost.rm_tokens - 6 * len(request.prompt) - result.cost.lm_calls
        assert -6 * 13 <= spare <= 6
        assert result.cost.rm_calls < result.cost.lm_calls


@pytest.mark.parametrize(("settings", "message"), [
    (CARDS | {"reward_target": None}, "needs a reward_target"),
    (CARDS | {"mode": "greedy"}, "rejected segments again, but greedy"),
    (CARDS | {"segment_min": 6}, "segment_min = 6 exceeds segment_tokens = 5"),
    (REJECTION | {"mode": "greedy"}, "n = 6 responses, but greedy"),
    (FILTER | {"mode": "greedy"}, "n = 6 responses, but greedy"),
    (FILTER | {"drop_rule": "probability"}, "needs a calibration"),
])
def test_bad_settings(models, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(models["llama", True], settings)


def test_bad_models(models, tmp_path, calibration):
    scorer = models["llama", True][2]

    def build(settings, one=scorer, goal=None):
        return build_method(DecodingConfig(**settings), one, goal)

    for settings in (CARDS, REJECTION, FILTER):
        with pytest.raises(MismatchError, match="needs a reward model"):
            build(settings | {"batch_size": 8}, None, make_goal())
    with pytest.raises(MismatchError, match="'goal_filter' needs a goal state"):
        build(FILTER)
    with pytest.raises(MismatchError, match="kind 'nearest'"):
        build(FILTER, goal=make_goal(keys=torch.ones(1, 32)))
    with pytest.raises(DataError, match="Expected a calibration at"):
        build(FILTER | {"drop_rule": "probability", "calibration": str(tmp_path / "no")},
              goal=make_goal())
    vocabulary = Scorer(
        RewardModel.from_base(save_tiny(tmp_path / "v"), HeadConfig(kind="vocabulary")),
        character_tokenizer(), Template(),
    )
    for settings in (CARDS, REJECTION | {"batch_size": 8}):
        with pytest.raises(MismatchError, match="needs a reward model with a scalar head"):
            build(settings, vocabulary)


@pytest.mark.parametrize("settings", [CARDS, REJECTION, FILTER],
                         ids=["cards", "rejection", "filter"])
def test_values_that_are_no_numbers_name_step_and_row(models, settings):
    policy, tokenizer, scorer = models["llama", True]

    class Broken(Scorer):
        def prefix_values(self, *arguments, **options):
            return super().prefix_values(*arguments, **options) * np.nan

        def score_ids(self, prompts, responses, **options):
            return np.full(len(prompts), np.nan)

    broken = Broken(scorer.reward_model, scorer.tokenizer, scorer.template)
    results = run((policy, tokenizer, broken), settings, REQUESTS[:3])
    for result in results:
        assert re.search(rf"gave nan at step \d+ of row '{result.id}'", result.error)
        assert result.finish_reason == "error"


@pytest.mark.parametrize("append_eos", [True, False])
def test_best_of_n_equals_the_plain_loop(models, append_eos):
    """Beside the others, for it had no plain loop of its own. Read as in training: closed by
    end-of-text, or open, whether the policy said it or not."""
    parts = models["llama", append_eos]
    settings = SHARED | {"method": "best_of_n", "n": 4, "top_k": 9, "temperature": 1.2}
    naive = naive_of(parts, settings)
    for request, result in zip(REQUESTS[:4], run(parts, settings, REQUESTS[:4]), strict=True):
        prompt = parts[1].encode(request.prompt)
        drawn = [naive.sample(prompt, request.id, k) for k in range(4)]
        rewards = [naive.reward([*prompt, *naive.closed(one)]) for one in drawn]
        assert result.token_ids == drawn[int(np.argmax(rewards))]
        assert result.reward == pytest.approx(max(rewards), abs=1e-4)
        assert result.cost.lm_calls == sum(map(len, drawn))
