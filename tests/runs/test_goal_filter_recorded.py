"""Recorded solutions are dropped, counted and voted over as decoding would."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "runs"))

from goal_filter_recorded import decode

from rewardsteer.decoding.config import DecodingConfig


def solution(answer, right, similarities):
    return {
        "predicted_answer": answer, "is_correct": right, "token_similarities": similarities,
        "token_count": len(similarities), "prompt_tokens": 10,
    }


WRONG, RIGHT = solution("7", False, [0.9, -0.5, 0.2, 0.1]), solution("8", True, [0.9, 0.8, 0.7])
ROWS = [WRONG, RIGHT, WRONG, RIGHT, WRONG]


def config(**settings):
    return DecodingConfig(method="goal_filter", n=5, drop_start=0, **settings)


def test_without_a_rule_it_is_the_plain_vote():
    assert decode(config(drop_rule="none"), ROWS) == (0, 50 + 18, 18)


def test_what_strays_is_dropped_there_and_both_models_are_counted():
    # Of the wrong ones two tokens are written; everything is read by the reward model too.
    assert decode(config(drop_rule="below", drop_threshold=0.0), ROWS) == (1, 2 * (50 + 12), 12)


def test_an_agreed_window_ends_the_sampling():
    found = decode(config(drop_rule="none", vote_stop="esc", vote_window=2), [RIGHT, *ROWS[1:]])
    assert found == (1, 20 + 6, 6)


def test_where_all_are_dropped_all_go_on_and_vote():
    right, _, written = decode(config(drop_rule="below", drop_threshold=1.0), ROWS)
    assert (right, written) == (0, 18)


def test_a_solution_dropped_at_its_very_end_is_whole():
    late = solution("8", True, [0.9, 0.8, -0.1])
    found = decode(config(drop_rule="below", drop_threshold=0.0), [late] * 5)
    assert found == (1, 2 * (50 + 15), 15)
