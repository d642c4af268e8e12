"""Sources of responses with numbers, on files of the published forms, real rows and bad input."""

import gzip
import json

import pytest

from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Message
from tests.data.test_sources import SHARED, load, needs_shared, write

HELPSTEER = {
    "response": "It is.", "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2,
    "verbosity": 1,
}


def ultrafeedback(*ratings):
    """A raw row of openbmb/UltraFeedback."""
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {
        "source": "evol_instruct", "instruction": "Why?", "models": ["a", "b", "c", "d"],
        "correct_answers": ["None"], "incorrect_answers": ["None"],
        "completions": [{
            "model": "m", "principle": "helpfulness", "custom_system_prompt": "Be helpful.",
            "response": f"Because {number}.", "critique": "…", "fine-grained_score": 1.0,
            "overall_score": 10.0,
            "annotations": {
                aspect: {"Rating": rating, "Rationale": "…"}
                for aspect, rating in zip(aspects, four, strict=True)
            },
        } for number, four in enumerate(ratings)],
    }


# --- ratings -------------------------------------------------------------------------------------


def test_helpsteer_keeps_its_attributes_and_puts_a_prompts_responses_together(tmp_path):
    rows = [
        {"prompt": "Is it?", **HELPSTEER}, {"prompt": "Is it?", **HELPSTEER, "verbosity": None},
        {"prompt": "Was it?", **HELPSTEER}, {"prompt": "Is it?", **HELPSTEER},
    ]
    found = load("ratings", path=write(tmp_path / "a.jsonl", rows))
    assert [len(row.responses) for row in found] == [2, 1, 1]
    assert found[0].numbers == {
        "helpfulness": [3.0, 3.0], "correctness": [4.0, 4.0], "coherence": [4.0, 4.0],
        "complexity": [2.0, 2.0], "verbosity": [1.0, None],
    }
    assert [row.id for row in found] == ["ratings-train-0", "ratings-train-1", "ratings-train-2"]
    assert found[0].source == "ratings"
    path = write(tmp_path / "b.jsonl", rows[:2])
    assert [len(row.responses) for row in load("ratings", path=path, together=1)] == [1, 1]
    (one,) = load("ratings", path=path, attributes=["verbosity"], together=2,
                  reading=Reading())
    assert one.numbers == {"verbosity": [1.0]}


@pytest.mark.parametrize("column", ["rating", "score", "reward", "label"])
def test_a_column_of_scores_is_the_rating(tmp_path, column):
    rows = [{"id": 0, "prompt": "p", "completion": "c", column: "0.5"}]
    (row,) = load("ratings", path=write(tmp_path / "a.jsonl", rows))
    assert (row.id, row.prompt, row.responses) == ("0", "p", ["c"])
    assert row.numbers == {"rating": [0.5]}


def test_ratings_in_mappings_under_other_names_and_in_conversations(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [
        {"messages": turns, "scores": {"taste": 2, "smell": "N/A"}},
        {"prompt": turns[:1], "completion": turns[1:], "scores": {"taste": 1}},
    ]
    (row,) = load("ratings", path=write(tmp_path / "a.jsonl", rows), attributes=["taste", "smell"])
    assert row.prompt == [Message(role="user", content="Hi")]
    assert row.responses == ["Hello", "Hello"]
    assert row.numbers == {"taste": [2.0, 1.0], "smell": [None, None]}
    rows = [{"q": "p", "a": "c", "stars": 4, "system": "Be kind."}]
    (row,) = load(
        "ratings", path=write(tmp_path / "b.jsonl", rows),
        fields={"prompt": "q", "response": "a", "rating": "stars"},
    )
    assert row.numbers == {"rating": [4.0]}
    assert [message.role for message in row.prompt] == ["system", "user"]


def test_rows_without_a_rating_are_counted(tmp_path):
    reading = Reading()
    rows = [
        {"prompt": "p", "response": "c", "rating": None},
        {"prompt": "p", "response": "d", "rating": 1},
    ]
    found = load("ratings", path=write(tmp_path / "a.jsonl", rows), reading=reading)
    assert [row.responses for row in found] == [["d"]]
    assert reading.dropped == {"without a rating": 1}


# --- lists ---------------------------------------------------------------------------------------


def test_ultrafeedbacks_rating_is_the_mean_of_what_is_rated(tmp_path):
    rows = [ultrafeedback(
        ("5", "4", "3", "4"), ("N/A", "N/A", "2", "1"), ("N/A",) * 4, ("1", "1", "1", "1"),
    )]
    (row,) = load("ranked", path=write(tmp_path / "a.jsonl", rows))
    assert row.prompt == "Why?"
    assert row.subset == "evol_instruct"
    assert row.responses == [f"Because {number}." for number in range(4)]
    assert row.numbers == {"rating": [4.0, 1.5, None, 1.0]}


@pytest.mark.parametrize(("more", "rating"), [
    ({"ranks": [2, 1, 3]}, [-2.0, -1.0, -3.0]), ({"rank": [1, 1, 2]}, [-1.0, -1.0, -2.0]),
    ({"scores": [0.5, 2, None]}, [0.5, 2.0, None]), ({}, [-1.0, -2.0, -3.0]),
])
def test_ranks_scores_or_the_order_itself(tmp_path, more, rating):
    for name in ("responses", "completions"):
        rows = [{"prompt": "p", name: ["a", "b", "c"], **more}]
        (row,) = load("ranked", path=write(tmp_path / "a.jsonl", rows))
        assert row.numbers == {"rating": rating}


def test_lists_that_order_nothing_are_counted(tmp_path):
    reading = Reading()
    rows = [{"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}, {
        "prompt": "p", "responses": ["a", "b"], "scores": [1, 2],
    }]
    assert len(load("ranked", path=write(tmp_path / "a.jsonl", rows), reading=reading)) == 1
    assert reading.dropped == {"without two responses that differ in their rating": 1}


# --- labels --------------------------------------------------------------------------------------


def test_trls_unpaired_rows(tmp_path):
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    rows = [
        {"prompt": "p", "completion": " good", "label": True},
        {"prompt": "p", "completion": " bad", "label": False},
        {"prompt": [user], "completion": [assistant], "label": "true"},
        {"prompt": "p", "completion": " so so", "label": 0.25},
        {"prompt": "p", "completion": " not labelled", "label": None},
    ]
    reading = Reading()
    found = load("labels", path=write(tmp_path / "a.jsonl", rows), reading=reading)
    assert [row.responses for row in found] == [[" good"], [" bad"], ["Hello"], [" so so"]]
    assert [row.numbers["label"] for row in found] == [[1.0], [0.0], [1.0], [0.25]]
    assert reading.dropped == {"without a label": 1}


@needs_shared
def test_real_solutions_with_labels_and_in_lists(tmp_path):
    path = SHARED / "gsm8k" / "example_model_solutions.jsonl.gz"
    with gzip.open(path, "rt") as stream:
        raw = [json.loads(line) for line in stream]
    models = [name for name, value in raw[0].items() if isinstance(value, dict)]
    labels = [
        {"prompt": row["question"], "completion": row[model]["solution"],
         "label": row[model]["is_correct"]}
        for row in raw for model in models
    ]
    found = load("labels", path=write(tmp_path / "a.jsonl", labels))
    assert len(found) == 4 * 1319
    assert sum(row.numbers["label"][0] for row in found) == 286 + 515 + 458 + 742
    lists = [{
        "prompt": row["question"], "responses": [row[model]["solution"] for model in models],
        "scores": [row[model]["is_correct"] for model in models],
    } for row in raw]
    found = load("ranked", path=write(tmp_path / "b.jsonl", lists))
    right = [sum(one["scores"]) for one in lists]
    assert len(found) == sum(0 < count < 4 for count in right)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "row", "message"), [
    ("ratings", {"prompt": "p", "response": "c"}, "expected ratings as rating, score"),
    ("ratings", {"prompt": "p", "response": "c", "rating": "good"}, "number as rating, got text"),
    ("ratings", {"prompt": "p", "response": "c", "rating": [1]}, "a number as rating, got a list"),
    ("ratings", {"prompt": "p", "rating": 1}, "expected a response as completion"),
    ("ratings", {"response": "c", "rating": 1}, "expected a prompt, found the field"),
    ("ratings", {"prompt": "p", "response": 3, "rating": 1}, "expected text or messages as resp"),
    ("ratings", {"prompt": "p", "response": "c", "rating": "nan"}, "expected a finite number"),
    ("ranked", {"prompt": "p"}, r"as responses or completions, found .* prompt; columns of"),
    ("ranked", {"prompt": "p", "responses": []}, "got an empty list"),
    ("ranked", {"prompt": "p", "responses": ["a", 1]}, "expected texts as responses"),
    ("ranked", {"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "scores of 2 numbers"),
    ("ranked", {"prompt": "p", "responses": ["a", "b"], "ranks": 1}, "2 numbers, one for each"),
    ("ranked", {"responses": ["a", "b"]}, "expected a prompt"),
    ("labels", {"prompt": "p", "completion": "c"}, r"the field\(s\) label, .*=\{OURS"),
    ("labels", {"prompt": "p", "completion": "c", "label": 2}, "a number from 0 to 1 as label"),
    ("labels", {"prompt": "p", "completion": "c", "label": "ok"}, "true, false or a number"),
    ("labels", {
        "prompt": "p", "label": True, "completion": [{"role": "user", "content": "c"}],
    }, "an assistant's message at the end of completion"),
    ("labels", {"prompt": "p", "label": True, "completion": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "c"},
    ]}, "2 messages that do not begin with the prompt, .* role 'user'"),
])
def test_bad_rows_are_named(tmp_path, name, row, message):
    path = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: .*" + message):
        load(name, path=path)
    reading = Reading(on_error="drop")
    assert load(name, path=path, reading=reading) == []
    assert reading.dropped == {"with a fault": 1}


@pytest.mark.parametrize(("name", "options", "message"), [
    ("ratings", {}, "the source ratings has no published place"),
    ("ranked", {}, "the source ranked has no published place"),
    ("labels", {}, "the source labels has no published place"),
    ("ratings", {"path": "x", "fields": {"answer": "a"}}, r"Unknown field\(s\) answer"),
    ("ratings", {"path": "x", "attributes": "rating"}, "must be a list of columns"),
    ("ratings", {"path": "x", "together": 0}, "whole number of 1 or more"),
])
def test_options_are_checked(name, options, message):
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        load(name, **options)


def test_a_field_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "response": "c", "rating": 1}])
    with pytest.raises(DataError, match=r"expected the field\(s\) stars"):
        load("ratings", path=path, fields={"rating": "stars"})
    with pytest.raises(DataError, match="expected ratings as taste, found"):
        load("ratings", path=path, attributes=["taste"])
