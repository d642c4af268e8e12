"""A beam that keeps what its values cannot tell apart: rule, limits, a plain twin, costs."""

import numpy as np
import pytest

from rewardsteer.configuration import load_config
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.methods import unused
from rewardsteer.decoding.strategies.steps import width_within
from rewardsteer.errors import ConfigError
from tests.decoding.test_beam import (
    PROMPTS,
    Table,
    make_goal,
    make_policy,
    make_scorer,
    plain_beam,
    plain_search,
    run,
    scripted,
    settings,
)
from tests.decoding.test_steps import SETTINGS
from tests.fakes import save_tiny

REWARDS = SETTINGS | {"method": "beam"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {"llama": save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama", seed=7)}


@pytest.mark.parametrize(("scores", "noise", "width"), [
    ([1.0], 0.0, 1), ([1.0, 1.0, 0.9], 0.0, 2), ([1.0, 0.7, 0.6], 0.1, 1),
    # 1.6449 · √2 · 0.15 = 0.349.
    ([1.0, 0.7, 0.66, 0.65], 0.15, 3), ([1.0, 0.0, -5.0], 9.0, 3),
])
def test_how_many_cannot_be_told_apart(scores, noise, width):
    assert width_within(scores, noise) == width


def test_an_equally_good_one_is_dropped_in_a_twentieth_of_cases():
    drawn = np.random.default_rng(0).normal(3.0, 0.4, (40_000, 2))
    dropped = [
        first > second and width_within([first, second], 0.4) == 1 for first, second in drawn
    ]
    assert np.mean(dropped) == pytest.approx(0.05, abs=0.004)


def test_the_width_follows_the_gaps():
    """Of the first round two of four cannot be told apart, of the second one."""
    scores = {(1, 5): 5.0, (2, 5): 4.9, (3, 5): 1.0, (4, 5): 0.0,
              (1, 5, 1, 5): 9.0, (1, 5, 2, 5): 7.0, (2, 5, 1, 5): 3.0, (2, 5, 2, 5): 2.0}
    guide = Table(scores.__getitem__, beam=3, branches=1, max_steps=2, value_noise=0.1)
    row = scripted([[[1, 5], [2, 5], [3, 5]], [[1, 5], [1, 5]]], guide)
    assert guide.asked == [[(1, 5), (2, 5), (3, 5)], [(1, 5, 1, 5), (2, 5, 1, 5)]]
    assert row.token_ids == [1, 5, 1, 5]


def rewarded(folders, noise, policy, **more):
    given = REWARDS | ({} if noise is None else {"value_noise": noise}) | more
    config = DecodingConfig(**given)
    scorer = make_scorer(folders["llama"])
    found = generate(*policy, PROMPTS, build_method(config, scorer), config)
    return config, scorer, list(found)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3])
def test_equals_the_plain_implementation(folders, noise):
    policy, tokenizer = make_policy()
    config, scorer, found = rewarded(folders, noise, (policy, tokenizer))
    for prompt, result in zip(PROMPTS, found, strict=True):
        ids = tokenizer.encode(prompt)

        def score(tokens, ids=ids):
            ended = tokens[-1] == tokenizer.eos_token_id
            if ended or len(tokens) == config.max_new_tokens:
                tokens = scorer.close_response(tokens, tokens[-1:] if ended else ())
            return float(scorer.score_ids([ids], [list(tokens)])[0])

        assert result.token_ids == plain_beam(
            policy, tokenizer, score, result.id, ids, config
        )


def test_equals_the_plain_search_to_a_goal(folders):
    policy, tokenizer = make_policy()
    goal, config = make_goal(), settings(value_noise=0.02, weight=2.0)
    for prompt, result in zip(PROMPTS, run(folders, config, goal=goal), strict=True):
        ids = tokenizer.encode(prompt)
        assert result.token_ids == plain_search(
            policy, tokenizer, make_scorer(folders["llama"]), goal, result.id, ids, config
        )


def test_limits_and_costs(folders):
    policy = make_policy()
    _, _, fixed = rewarded(folders, None, policy)
    _, _, noisy = rewarded(folders, 1e6, policy)
    _, _, exact = rewarded(folders, 0.0, policy)
    for one, other in zip(fixed, noisy, strict=True):
        assert one.token_ids == other.token_ids
        assert one.details == other.details
        assert one.cost.lm_calls == other.cost.lm_calls
    assert all(set(one.details["widths"]) == {1} for one in exact)
    assert any(max(one.details["widths"]) == 3 for one in fixed)
    spent = [sum(one.cost.lm_calls for one in results) for results in (exact, fixed)]
    assert spent[0] < 0.75 * spent[1]


def test_what_is_refused():
    assert unused("dvts", ["value_noise"]) == ("value_noise", "beam")
    with pytest.raises(ConfigError, match="value_noise"):
        load_config(DecodingConfig, {"method": "beam", "value_noise": -1.0})
