"""Controls beside the reward: who wrote a solution, its length, chance."""

import numpy as np
import pytest

from rewardsteer.data.solutions import source_of
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.controls import controls, source_scores
from rewardsteer.records import Solution

CONFIG = CorrectnessConfig()


def solutions(rng, chances, questions=200):
    """One solution of each question by each source, right with the source's own probability."""
    return [
        Solution(question_id=str(question), model=model, sample="rs0", prompt="?", completion="!",
                 is_correct=bool(rng.random() < chance), token_count=int(rng.integers(5, 50)))
        for question in range(questions) for model, chance in chances.items()
    ]


def test_a_planted_shortcut_is_named():
    rng = np.random.default_rng(0)
    rows = solutions(rng, {"weak": 0.03, "strong": 0.97})
    # The reward knows who wrote a solution and nothing else.
    rewards = [float(one.model == "strong") + 0.1 * rng.random() for one in rows]
    found = controls(rows, rewards, CONFIG)
    assert found["source"]["auroc"] > 0.95
    # Of every question the strong source's solution.
    strong = np.mean([one.is_correct for one in rows if one.model == "strong"])
    assert found["source"]["best_of"] == pytest.approx(strong)
    assert found["source"]["best_of_low"] < strong < found["source"]["best_of_high"]
    assert found["within_source"] == pytest.approx(0.5, abs=0.2)
    assert found["within_source_low"] < 0.5 < found["within_source_high"]
    assert found["rank_correlation"]["source"] > 0.7
    [note] = [one for one in found["notes"] if one.startswith("source alone: AUROC 0.9")]
    assert "adds nothing within source" in note


def test_a_reward_that_also_knows_the_question_adds_nothing_within_source():
    """It ranks above the source alone, since it knows which questions are easy."""
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.5
    rows = [
        Solution(question_id=f"{q:03}", model=model, sample="rs0", prompt="?", completion="!",
                 is_correct=bool(rng.random() < chance * (1.0 if easy[q] else 0.4)),
                 token_count=int(rng.integers(5, 50)))
        for q in range(200) for model, chance in (("weak", 0.2), ("strong", 0.9))
    ]
    rewards = [float(one.model == "strong") + 0.3 * rng.random() for one in rows]
    found = controls(rows, rewards, CONFIG)
    assert found["within_source_low"] < 0.5
    assert [one for one in found["notes"] if "adds nothing within source" in one]


def test_a_reward_that_reads_is_not_accused():
    rng = np.random.default_rng(1)
    rows = solutions(rng, {"weak": 0.4, "strong": 0.6})
    rewards = [float(one.is_correct) + 0.3 * rng.normal() for one in rows]
    found = controls(rows, rewards, CONFIG)
    assert found["notes"] == []
    assert found["within_source"] > 0.95
    assert found["source"]["auroc"] == pytest.approx(0.6, abs=0.05)
    assert found["random"]["low"] < 0.5 < found["random"]["high"]


def test_the_source_is_judged_on_other_questions():
    # Every source has one question: on others nothing is known of it.
    labels = [True, False, True, False]
    assert source_scores(list("abcd"), labels, list("wxyz")).tolist() == [0.5] * 4


def test_within_few_solutions_of_one_source_nothing_is_said_of_them():
    """Eleven questions, of which one has both labels by one writer: the AUROC there has no
    interval that could hold one half, and its value is no proof."""
    rng = np.random.default_rng(0)
    rows = solutions(rng, {"weak": 0.0, "strong": 1.0}, questions=11)
    rows[0] = rows[0].model_copy(update={"is_correct": True})
    found = controls(rows, [float(one.model == "strong") for one in rows], CONFIG)
    assert "within_source_low" in found
    assert found["within_source_low"] < 0.5 < found["within_source_high"]


@pytest.mark.parametrize(("sample", "source"), [
    ("rs3", "m"), ("greedy", "m"), ("7", "m"), ("", "m"), ("COT", "m/COT"),
])
def test_sources(sample, source):
    one = Solution(prompt="?", completion="!", model="m", sample=sample)
    assert source_of(one) == source
