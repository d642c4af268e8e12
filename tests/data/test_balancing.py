"""Pairs of solutions that who wrote them does not tell apart."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from rewardsteer.data.balancing import SourcedPair, balanced, source_accuracy
from rewardsteer.data.sources.graded import load
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import ConfigError, DataError

CHANCES = {"weak": 0.1, "middle": 0.5, "strong": 0.9}


def graded(tmp_path, questions=200, chances=CHANCES):
    """Two solutions of each question by each model, correct with the model's own probability."""
    rng = np.random.default_rng(0)
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(
        json.dumps({"question": f"q{q}", "model": model, "sample": f"rs{n}",
                    "generation": f"{model} {n}", "is_correct": bool(rng.random() < chance)}) + "\n"
        for q in range(questions) for model, chance in chances.items() for n in range(2)
    ))
    return str(path)


def test_each_source_is_preferred_as_often_as_not(tmp_path):
    reading = Reading()
    pairs = list(load("train", path=graded(tmp_path), balance_by="source", reading=reading))
    found = Counter((one.chosen_by, one.rejected_by) for one in pairs)
    assert found["strong", "weak"] == found["weak", "strong"] > 0
    assert found["strong", "middle"] == found["middle", "strong"] > 0
    assert found["strong", "strong"] > 0
    assert max(Counter(one.prompt for one in pairs).values()) <= 4
    assert all(one.chosen.startswith(one.chosen_by) for one in pairs)
    [note] = reading.notes
    before, after = (float(part.rstrip("%")) for part in note.split() if part.endswith("%"))
    assert before > 80
    assert after == pytest.approx(50, abs=5)
    assert pairs == list(load("train", path=graded(tmp_path), balance_by="source"))
    assert pairs != list(load("train", path=graded(tmp_path), balance_by="source", seed=1))


def test_what_a_source_tells_is_said_without_being_asked(tmp_path):
    reading = Reading()
    assert len(list(load("train", path=graded(tmp_path), reading=reading))) > 400
    assert "tells 8" in reading.notes[0]
    assert "balance_by=source" in reading.notes[0]
    reading = Reading()
    list(load("train", path=graded(tmp_path, chances={"a": 0.5, "b": 0.5}), reading=reading))
    assert reading.notes == []


def test_accuracy_of_the_source_is_from_other_questions():
    pairs = [SourcedPair("q", "x", "y", "a", "b")]
    solutions = [("q", "a", True), ("q", "b", False)]
    assert source_accuracy(pairs, solutions) == 0.5  # nothing is known of other questions
    other = next(f"o{n}" for n in range(99) if _fold(f"o{n}") != _fold("q"))
    assert source_accuracy(pairs, [*solutions, (other, "a", True)]) == 1.0
    assert source_accuracy(pairs, [*solutions, (other, "b", True)]) == 0.0


def _fold(question):
    from rewardsteer.data.balancing import fold_of

    return fold_of(question)


def test_rare_directions_come_first():
    """Of ten pairs per question the single one that prefers the weak source is taken."""
    pairs = {
        f"q{q}": [SourcedPair(f"q{q}", "w", "s", "weak", "strong")] * (q < 3)
        + [SourcedPair(f"q{q}", f"s{n}", "w", "strong", "weak") for n in range(9)]
        for q in range(6)
    }
    kept = balanced(pairs, 1, random.Random(0))
    assert Counter(one.chosen_by for one in kept) == {"weak": 3, "strong": 3}


@pytest.mark.parametrize(("chances", "value", "error", "words"), [
    (CHANCES, "author", ConfigError, "balance_by; known: source, model"),
    ({"one": 0.5}, "source", DataError, "needs solutions of several sources"),
    ({"weak": 0.0, "strong": 1.0}, "source", DataError, "No pair is left"),
])
def test_what_cannot_be_balanced(tmp_path, chances, value, error, words):
    with pytest.raises(error, match=words):
        list(load("train", path=graded(tmp_path, 20, chances), balance_by=value))
