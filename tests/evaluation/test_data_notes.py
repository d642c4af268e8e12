"""Bad rows of every kind: a sentence, and the figures all the same."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.evaluation.data_notes import record_notes
from rewardsteer.evaluation.preference import evaluate_comparisons
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Comparison, EvalRecord, Generation


class _Letters(TextScorer):
    """Scores a text by how many x it holds."""

    reads_tokens = False
    name = "letters"

    def __init__(self):
        pass

    def score(self, prompts, completions, *, batch_size=16):
        return np.array([text.count("x") for text in completions], dtype=float)


def pairs(chosen, rejected, prompt="q{}", count=20):
    return [
        Comparison(id=str(i), prompt=prompt.format(i), chosen=chosen, rejected=rejected)
        for i in range(count)
    ]


PAIRS = {
    "ties": (pairs("ab", "cd"), "all 40 rewards are 0: they rank nothing", 0.5),
    "some ties": ([*pairs("x", "y"), *pairs("x", "ax", "p{}", 5)],
                  "5 of 25 pairs have equal rewards: each counts one half", 0.9),
    "same response": (pairs("x", "x"), "20 of 20 pairs hold the same response twice", 0.5),
    "rows twice": (pairs("x", "y") * 2, "20 of 40 pairs repeat another one", 1.0),
    "empty responses": (pairs("x", ""), "20 of 40 responses are empty", 1.0),
    "one question": (pairs("x", "y", "q"), "19 of 20 pairs repeat another one", 1.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    rows, sentence, accuracy = PAIRS[name]
    found = evaluate_comparisons(_Letters(), rows)
    assert sentence in found["notes"]
    assert found["all"]["accuracy"] == pytest.approx(accuracy)
    if name == "one question":
        assert found["all"]["intervals"].startswith("no intervals: 1 prompt")


def test_pairs_without_fault_have_no_note():
    assert evaluate_comparisons(_Letters(), pairs("x", "y"))["notes"] == []


def record(prompt, text, reward):
    return EvalRecord(
        generation=Generation(id="0", prompt=prompt, completion=text, method="none"),
        metrics={"reward": reward},
    )


def test_records_of_methods():
    rows = [record("a", "", 1.0), record("a", "x", 1.0)]
    assert record_notes([rows, rows]) == [
        "all 4 rewards are 1: they rank nothing", "1 of 2 prompts repeat another one",
        "2 of 4 responses are empty",
    ]
    assert record_notes([[record("a", "x", 1.0), record("b", "x", 2.0)]]) == []


def _evaluate_benchmark(tmp_path, rows, scores):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "scores.jsonl").write_text("".join(
        json.dumps({"id": f"Math/{one['id']}", "scores": own}) + "\n"
        for one, own in zip(rows, scores, strict=True)
    ))
    result = CliRunner().invoke(app, [
        "evaluate", "benchmark", f"rewardbench2={tmp_path / 'rows.jsonl'}", "--scores",
        str(tmp_path / "scores.jsonl"), "--out", str(tmp_path / "out"),
    ])
    assert result.exit_code == 0, result.output
    return result.stderr, json.loads((tmp_path / "out" / "metrics.json").read_text())


@pytest.mark.parametrize(("rows", "scores", "sentence", "value"), [
    (range(12), [0.5] * 4, "all 48 scores are 0.5: they rank nothing", 0.25),
    ([0] * 12, [1.0, 0.0, 0.0, 0.0], "11 of 12 items repeat another one", 1.0),
    (range(1), [1.0, 0.0, 0.0, 0.0], "all items are of one question: there are no intervals", 1.0),
], ids=["ties", "rows twice", "one question"])
def test_benchmarks(tmp_path, rows, scores, sentence, value):
    given = [
        {"id": str(place), "prompt": f"{number} + 1 =", "chosen": [str(number + 1)],
         "rejected": ["no", "7 + 7", ""], "subset": "Math"}
        for place, number in enumerate(rows)
    ]
    said, metrics = _evaluate_benchmark(tmp_path, given, [scores] * len(given))
    assert f"rewardbench2: {sentence}" in said
    assert f"{len(given)} of {4 * len(given)} responses are empty" in said
    assert metrics["rewardbench2"]["scores.jsonl"]["Math"]["score"] == pytest.approx(value)
