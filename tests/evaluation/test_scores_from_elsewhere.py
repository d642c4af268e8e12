"""Scored solutions that another program wrote, through ``rewardsteer evaluate correctness``."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.solutions import read_solutions
from rewardsteer.data.sources import SOURCES
from rewardsteer.errors import DataError
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.filtering import filter_questions
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.evaluation.correctness.votes import by_samples
from rewardsteer.evaluation.grading import agreement, grade
from rewardsteer.evaluation.score_inputs import read_answered, solution_rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TOKENS = {"token_rewards": [0.0, 1.0]}


def rows(questions=24, samples=2, **changes):
    """Correct solutions have the higher reward, but for every fifth question."""
    found = []
    for q in range(questions):
        for s in range(samples):
            correct = (q + s) % 2 == 0
            high = correct != (q % 5 == 0)
            found.append({
                "prompt": f"q{q}?", "completion": "It is 1.", "question_id": f"q{q}",
                "sample": f"rs{s}", "predicted_answer": "1" if correct else "2",
                "is_correct": correct, "reward": float(high),
            } | changes)
    return found


def evaluate(tmp_path, scored):
    path = write(tmp_path / "b.jsonl", scored)
    result = CliRunner().invoke(app, [
        "evaluate", "correctness", "--scores", str(path), "--out", str(tmp_path / "out"),
        "draws=5", "orders=2",
    ])
    metrics = tmp_path / "out" / "metrics.json"
    return result, json.loads(metrics.read_text()) if metrics.exists() else {}


def but(found, **fields):
    return [one | fields for one in found]


def without(found, *names):
    return [{name: value for name, value in one.items() if name not in names} for one in found]


# By benchmark: solutions, what is said of them, and a figure that they have all the same.
CASES = {
    "one class": (but(rows(), is_correct=True), "all 48 scored solutions are right: no AUROC",
                  "majority_accuracy"),
    "one question": (rows(1), "1 questions at validation=0.5 leave one side empty", "auroc"),
    "missing labels": ([*rows(), *(one | {"is_correct": None, "model": "m"} for one in rows())],
                       "48 solutions without a label: left out", "auroc"),
    "no label": (but(rows(), is_correct=None), "none of its 48 solutions has a label; left out",
                 None),
    "rows twice": ([*rows(), *rows()], "48 rows left out: each repeats another one", "auroc"),
    "questions twice": ([*rows(), *(one | {"question_id": f"again {one['question_id']}"}
                                    for one in rows())],
                        "24 questions with the text of another one", "auroc"),
    "ties": (but(rows(), reward=0.5), "all 48 rewards are 0.5: they rank nothing", "auroc"),
    "empty responses": ([*rows(), *but(rows(), sample="", completion="", token_rewards=[],
                                       question_id="empty")][:49],
                        "1 solution without a reward: they vote, but are not ranked", "auroc"),
    "no answers": (but(rows(), predicted_answer=None),
                   "votes, filtering and stopping need answers; none of the 48 solutions has one",
                   "auroc"),
    "no rewards": (without(rows(), "reward"), "no labelled solution has a reward",
                   "majority_accuracy"),
    "answers in texts": (without(rows(), "predicted_answer"), "48 answers taken from the text",
                         "majority_accuracy"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One run over a benchmark of every kind."""
    return evaluate(tmp_path_factory.mktemp("odd"), [
        one | {"benchmark": name} for name, (found, _, _) in CASES.items() for one in found])


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_and_the_rest_of_the_table(odd, name):
    result, metrics = odd
    _, sentence, figure = CASES[name]
    assert result.exit_code == 0, result.output
    assert [one for one in result.stderr.splitlines()
            if one.startswith(f"{name}: ") and sentence in one], result.stderr
    if figure is not None:
        assert figure in metrics[name]
        assert metrics[name]["by_samples"]


def test_a_planted_shortcut_is_named_by_the_command(tmp_path):
    """The reward is high for all that one of two models wrote, and that is mostly correct."""
    planted = [
        one | {"model": model, "reward": level + 0.01 * (number * 7 % 10), "sample": "rs0",
               "question_id": f"q{number}", "prompt": f"q{number}?",
               "is_correct": (model == "strong") != (number % 50 == 7)}
        for number, one in enumerate(rows(100, 1))
        for model, level in (("weak", 0.0), ("strong", 1.0))
    ]
    result, metrics = evaluate(tmp_path, planted)
    assert "b: source alone: AUROC 0.9" in result.stderr
    assert "so the reward adds nothing within source" in result.stderr
    assert metrics["b"]["controls"]["source"]["auroc"] > 0.95


def test_each_k_counts_the_questions_that_have_k(tmp_path):
    """A question with one solution takes nothing from the others, nor from their figures."""
    scored = rows(40, 4)
    cut = [one for one in scored if one["question_id"] != "q3" or one["sample"] == "rs0"]
    path = write(tmp_path / "b.jsonl", cut)
    [bench] = load_scored(path)[0].values()
    whole = [one for one in bench.questions if one.key != "q3"]
    config = CorrectnessConfig(draws=5)
    found, without = by_samples(bench.questions, config), by_samples(whole, config)
    assert [row["questions"] for row in found] == [40, 39, 39, 39]
    assert found[-1] == without[-1]
    for way in ("majority", "weighted", "best_of", "pass"):
        assert found[-1][f"{way}_low"] <= found[-1][way] <= found[-1][f"{way}_high"]
        assert found[-1][f"{way}_low"] < found[-1][f"{way}_high"]


def test_why_no_threshold_is_risk_controlled(tmp_path):
    scored = [one | {"token_rewards": [0.0] * 6 + [one["reward"]]} for one in rows(24, 3)]
    result, metrics = evaluate(tmp_path, scored)
    said = " ".join(result.stderr.split())
    assert "b, reward: no threshold is shown on" in said
    assert "which takes at least 114" in said
    assert "risk" not in metrics["b"]["filtering"]["reward"]


@pytest.mark.parametrize(("change", "words"), [
    ({"reward": float("nan")}, ["line 1", "finite numbers as reward"]),
    ({"token_rewards": [0.0, float("inf")]}, ["finite numbers as token_rewards"]),
    (TOKENS | {"token_count": 5}, ["2 values for 5 tokens"]),
    ({"token_count": -3}, ["token_count: expected at least 0, got -3"]),
    ({"reward": [1.0]}, ["reward: expected a number"]),
])
def test_values_that_cannot_be_used_are_refused_before_the_output(tmp_path, change, words):
    result, _ = evaluate(tmp_path, rows(**change))
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_absent_fields_are_named(tmp_path):
    result, _ = evaluate(tmp_path, [{"completion": "1", "is_correct": True}])
    assert "prompt: this is required and was not given" in " ".join(result.stderr.split())


def test_tokens_are_those_of_the_values(tmp_path):
    """Without ``token_count`` every solution would count as read to its end."""
    scored = [one | {"token_rewards": [0.0, one["reward"]]} for one in rows()]
    [bench] = load_scored(write(tmp_path / "b.jsonl", scored))[0].values()
    assert {one.token_count for one in bench.solutions} == {2}
    table = filter_questions(bench.questions, [0.5], "reward", start=1)
    assert table.dropped.sum() == 24


def test_an_explicit_lack_of_an_answer_stays(tmp_path):
    given = [{"question": "1+1?", "generation": "So it is 7.", "predicted_answer": None,
              "is_correct": False}]
    path = write(tmp_path / "in.jsonl", given)
    with solution_rows(path, [], tmp_path / "scores", 8) as found:
        [written] = [row for source in found.values() for row in source.read(0)]
    assert written["predicted_answer"] is None
    assert "predicted_answer" in written
    [bench] = load_scored(write(tmp_path / "b.jsonl", [written]))[0].values()
    assert (bench.questions[0].answers, bench.extracted) == ([None], 0)


def test_answers_that_scoring_took_from_texts_still_count_as_such(tmp_path):
    text = "Napoleon was exiled in 1815 to an island."
    given = [{"question": "Who?", "generation": text, "is_correct": False}]
    path = write(tmp_path / "in.jsonl", given)
    with solution_rows(path, [], tmp_path / "scores", 8) as found:
        [written] = [row for source in found.values() for row in source.read(0)]
    assert written["predicted_answer"] == "1815"
    [bench] = load_scored(write(tmp_path / "b.jsonl", [written]))[0].values()
    assert (bench.questions[0].answers, bench.extracted) == (["1815"], 1)
    # Also through another round, and never of a given answer.
    [(_, again)] = read_solutions(write(tmp_path / "c.jsonl", [written]))
    assert again.answer_from_text
    [(_, stated)] = read_solutions(
        write(tmp_path / "d.jsonl", [{"question": "?", "generation": "2", "predicted_answer": "2"}])
    )
    assert not stated.answer_from_text


def test_votes_of_texts_that_state_no_answer_are_told_of_and_can_be_left_out(tmp_path):
    """A text that is no mathematics has a last number too."""
    text = {"completion": "Napoleon was exiled in 1815 to an island."}
    found = without(but(rows(), **text), "predicted_answer")
    result, metrics = evaluate(tmp_path, found)
    assert "48 answers taken from the text, for want of predicted_answer" in result.stderr
    assert metrics["b"]["answers_from_text"] == 48
    (tmp_path / "none").mkdir()
    result, metrics = evaluate(tmp_path / "none", but(rows(), predicted_answer=None, **text))
    assert "taken from the text" not in result.stderr
    assert "majority_accuracy" not in metrics["b"]
    assert "auroc" in metrics["b"]


def test_lists_beside_one_solution_are_refused(tmp_path):
    """Here ``solution`` is the reference, and the model's solutions are in ``code``."""
    row = {"question": "?", "solution": "It is 4.", "answer": "4", "code": ["It is 4."] * 2,
           "pred": ["4", "5"], "score": [True, False]}
    with pytest.raises(DataError, match="'pred' holds 2 values for one solution"):
        list(read_answered(write(tmp_path / "a.jsonl", [row]), []))


def test_labels_made_here_are_not_compared(tmp_path):
    given = [{"question": f"{i}?", "generation": "So 4.", "expected_answer": "4",
              **({"is_correct": False} if i < 3 else {})} for i in range(30)]
    path = write(tmp_path / "gsm8k.jsonl", given)
    assert agreement(read_answered(path, []))["gsm8k"]["solutions"] == 3
    result = CliRunner().invoke(app, [
        "evaluate", "answers", "--input", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out" / "differing.jsonl").read_text().splitlines()
    assert [json.loads(line)["extracted"] for line in lines] == ["4"] * 3
    write(path, [{k: v for k, v in one.items() if k != "is_correct"} for one in given])
    result = CliRunner().invoke(app, [
        "evaluate", "answers", "--input", str(path), "--out", str(tmp_path / "no")])
    assert (result.exit_code, (tmp_path / "no").exists()) == (2, False)


def test_a_question_is_no_implicit_prompt(tmp_path):
    pair = {"chosen": "It is 2.", "rejected": "It is 3."}
    for name in ("question", "instruction"):
        path = write(tmp_path / "a.jsonl", [pair | {name: "1+1?", "system": "Add."}])
        [found] = SOURCES.get("pairs")("train", path=str(path))
        assert [one.content for one in found.prompt] == ["Add.", "1+1?"]
        assert found.chosen == "It is 2."
    for name in ("problem", "query", "input"):
        path = write(tmp_path / "a.jsonl", [pair | {name: "1+1?"}])
        with pytest.raises(DataError, match=f"found {name} and no prompt"):
            list(SOURCES.get("pairs")("train", path=str(path)))


def test_a_sentence_given_as_the_answer_is_graded_and_votes_by_its_number(tmp_path):
    """With the reference in the row, and with one that comes from the benchmark's problems."""
    told = {"question": "1+1?", "generation": "So 2.", "predicted_answer": "It costs $2 in all."}
    problems = write(tmp_path / "test.jsonl", [{"question": "1+1?", "answer": "#### 2"}])
    for row, options in ((told | {"expected_answer": "2"}, []), (told, [f"gsm8k={problems}"])):
        path = write(tmp_path / "gsm8k.jsonl", [row])
        [found] = map(grade, read_answered(path, options))
        assert (found.is_correct, found.predicted_answer) == (True, "2")
    row = told | {"expected_answer": "Train 5 is first", "predicted_answer": "Train 5 is last"}
    [found] = map(grade, read_answered(write(tmp_path / "a.jsonl", [row]), []))
    assert (found.is_correct, found.predicted_answer) == (False, "train 5 is last")


def test_numbers_are_read_as_names(tmp_path):
    numbered = [row | {"sample": n % 2, "question_id": n // 2} for n, row in enumerate(rows(4))]
    by_name = [row | {"sample": str(n % 2), "question_id": str(n // 2)}
               for n, row in enumerate(rows(4))]
    assert load_scored(write(tmp_path / "n.jsonl", numbered))[0]["n"].questions == load_scored(
        write(tmp_path / "n.jsonl", by_name)
    )[0]["n"].questions
