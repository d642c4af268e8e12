"""Controls beside the reward on pairs: who wrote a response, its length."""

import json

import numpy as np
import pytest

from rewardsteer.data.sources.pairs import load
from rewardsteer.evaluation.preference import evaluate_comparisons
from rewardsteer.evaluation.preference_figures import preference_controls
from rewardsteer.models.text_scorer import TextScorer


def pairs(count=300, strong=0.98, seed=0):
    """Two writers; every third pair is of one writer, and the strong one wins most of the others.
    Two pairs per prompt."""
    rng = np.random.default_rng(seed)
    writers = []
    for number in range(count):
        if number % 3 == 0:
            writers.append((("strong", "strong"), ("weak", "weak"))[rng.integers(2)])
        else:
            writers.append(("strong", "weak") if rng.random() < strong else ("weak", "strong"))
    return writers, np.arange(count) // 2, rng


def test_a_planted_shortcut_is_named():
    writers, prompts, rng = pairs(seed=1)
    rewards = np.array([[name == "strong" for name in pair] for pair in writers], dtype=float)
    rewards += 0.1 * rng.random(rewards.shape)
    found = preference_controls(rewards, rng.integers(5, 50, rewards.shape), writers, prompts)
    cross = [first for first, second in writers if first != second]
    expected = (cross.count("strong") + (len(writers) - len(cross)) / 2) / len(writers)
    assert found["source"]["accuracy"] == pytest.approx(expected)
    assert found["within_source"]["count"] == 100
    assert found["within_source"]["low"] < 0.5 < found["within_source"]["high"]
    [note] = [one for one in found["notes"] if one.startswith("source alone: accuracy 0.8")]
    assert note.endswith("so the reward adds nothing within source")
    # It beats its length all the same, and nothing is said of that.
    assert [one for one in found["notes"] if one.startswith("length")] == []


def test_a_reward_that_reads_is_not_accused():
    writers, prompts, rng = pairs(strong=0.6)
    rewards = np.array([1.0, 0.0]) + 0.3 * rng.normal(size=(len(writers), 2))
    found = preference_controls(rewards, rng.integers(5, 50, rewards.shape), writers, prompts)
    assert found["notes"] == []
    assert found["within_source"]["accuracy"] > 0.95
    assert found["source"]["accuracy"] == pytest.approx(0.5 + 0.2 * 0.5 * 2 / 3, abs=0.08)


def test_each_prompt_counts_once():
    rewards = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    found = preference_controls(rewards, np.ones((4, 2)), [], np.array([7, 7, 7, 9]))
    assert found["by_prompt"]["accuracy"] == 0.5
    assert found["length"]["accuracy"] == 0.5  # as long: a tie
    assert "source" not in found


class _Letters(TextScorer):
    """Scores a text by how many x it holds."""

    reads_tokens = False
    name = "letters"

    def __init__(self):
        pass

    def score(self, prompts, completions, *, batch_size=16):
        return np.array([text.count("x") for text in completions], dtype=float)


def test_writers_are_read_from_rows(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(
        json.dumps({"prompt": f"q{i}", "chosen": "x" * (1 + i % 3), "rejected": "yyyy",
                    "chosen_model": "a", "rejected-model": "b"}) + "\n" for i in range(30)))
    found = evaluate_comparisons(_Letters(), list(load("train", path=str(path))))["controls"]
    assert found["source"]["accuracy"] == 1.0
    assert found["length"]["accuracy"] == 0.0
    assert any(one.startswith("source alone: accuracy 1.000; the reward's 1.000 is not above it")
               for one in found["notes"])
