"""What the demo says of its questions and choices is what it does."""

import re
from pathlib import Path

import numpy as np
import pytest

from rewardsteer.demo import page
from rewardsteer.demo.compare import judge_samples
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.world import Samples, draw_questions, known_questions

ROOT = Path(__file__).parents[2]
SMALL = DemoConfig(questions=300, tuning_prompts=20, vote_questions=20, fresh=400)


class Fake:
    """Ranks right what it knows, and the wrong way round what it does not."""

    def __init__(self, known):
        self.known = known

    def score(self, questions, solutions, *, batch_size):
        signs = np.array([1.0 if one in self.known else -1.0 for one in questions])
        return signs * np.array([float(one == "right") for one in solutions])


def test_known_questions_are_all_that_anything_was_trained_or_chosen_on():
    known = known_questions(SMALL)
    for stream, count in (("pairs", 300), ("tuning", 20), ("votes", 20)):
        assert set(draw_questions(count, SMALL, stream)) <= known
    assert len(known) <= 340


def test_a_model_that_only_knows_its_questions_is_found_out():
    known = known_questions(SMALL)
    questions = draw_questions(SMALL.fresh, SMALL, "fresh")
    # Both kinds are there: other streams draw many questions again.
    shares = np.mean([one in known for one in questions])
    assert 0 < shares < 1
    right = [number % 2 == 0 for number in range(len(questions))]
    samples = Samples(questions, ["right" if one else "wrong" for one in right], right)
    found = judge_samples({"fake": Fake(known)}, samples, SMALL)["fake"]
    assert found["auroc_new"] == 0
    assert 0 < found["auroc"] < 1


def figures(accuracy):
    return {
        "accuracy": accuracy, "reward": 0.1, "reward_gain": 0.1, "reward_stderr": 0.1, "count": 9,
        "seconds_per_token": 0.01, "draws": 1, "equivalent_tokens": 20,
    }


@pytest.mark.parametrize("table", ["test questions", "as many tokens as best-of-n"])
def test_tables_with_the_filter_say_that_labels_chose_its_threshold(table):
    methods = {"none": figures(0.5), "goal_filter": figures(0.8)}
    blocks = [*page._methods(methods, {"weights": {"farma": 1.0}}), page._budget(methods)]
    [found] = [one for one in blocks if one.kind == "table" and table in one.caption]
    assert any(row[0] == "goal_filter" for row in found.rows)
    assert re.search(r"threshold was chosen by labels", found.caption)
    assert re.search(r"weights of the others by reward", found.caption)


def test_the_page_with_its_figures_says_so_too():
    text = " ".join((ROOT / "docs" / "results_demo.md").read_text().split())
    assert "(`goal_filter`) |" in text
    assert "threshold was chosen by labels" in text
    assert re.search(r"[Ww]eights were chosen by reward", text)


def test_the_readme_shows_its_figures_only_with_that_sentence():
    text = " ".join((ROOT / "README.md").read_text().split())
    assert "goal_filter" not in text or "by labels" in text
