"""Solutions with labelled steps: the published forms, and where steps end among the tokens."""

import gzip
import json
from pathlib import Path

import pytest

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources import SOURCES, held_out_pairs
from rewardsteer.data.sources.reading import Reading
from rewardsteer.data.step_tokens import step_lengths
from rewardsteer.data.store import load_set
from rewardsteer.errors import ConfigError, DataError
from tests.chat import chat_tokenizer
from tests.fakes import character_tokenizer

SHARED = (Path(__file__).parents[2] / "../shared/data/reward_models/openr").resolve()
shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared real rows are not here")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(source, path, **options):
    return list(SOURCES.get(source)("train", path=str(path), **options))


def steps_of(row):
    """The labelled steps of a row with their labels, by its own ends."""
    begins = [0, *row.step_ends[:-1]]
    return [
        (row.chosen[begin:end].strip(), label)
        for begin, end, label in zip(begins, row.step_ends, row.step_labels, strict=True)
    ]


STEPWISE = {
    "prompt": "What is 2+3+4?", "completions": ["2+3 = 6.", " 6+4 = 10.\n", "10"],
    "labels": [False, True, True],
}


def test_trls_form(tmp_path):
    path = write(tmp_path / "rows.jsonl", [STEPWISE, {**STEPWISE, "labels": [0.25, None, 1]}])
    first, second = read("stepwise", path)
    assert first.chosen == "2+3 = 6.\n\n6+4 = 10.\n\n10"
    assert first.single
    assert first.step_ends == [10, 21, 23]
    assert steps_of(first) == [("2+3 = 6.", 0.0), ("6+4 = 10.", 1.0), ("10", 1.0)]
    assert (second.step_ends, second.step_labels) == ([10, 23], [0.25, 1.0])


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": [True]}, "line 1: expected a label for each step, got 3 steps and 1 labels"),
    ({"labels": [True, False, -1]}, r"numbers from 0 to 1, got a number \(-1\)"),
    ({"labels": ["+", "-", "+"]}, "true, false, null or numbers from 0 to 1, got text"),
    ({"labels": "yes"}, "expected a list in labels, got text"),
    ({"completions": ["a", " ", "b"]}, "expected steps with text, got an empty one"),
    ({"completions": [], "labels": []}, "expected steps with text, got none"),
    ({"completions": ["a", 3, "b"]}, "another kind of value than expected"),
])
def test_rows_of_another_form_are_refused(tmp_path, change, message):
    path = write(tmp_path / "rows.jsonl", [{**STEPWISE, **change}])
    with pytest.raises(DataError, match=message):
        read("stepwise", path)


@pytest.mark.parametrize("source", ["stepwise", "prm800k"])
def test_a_source_without_a_published_place_needs_a_path(source):
    with pytest.raises(ConfigError, match="has no published place"):
        list(SOURCES.get(source)("train"))


@pytest.mark.parametrize("source", ["stepwise", "prm800k", "math_shepherd", "rlhflow_steps"])
def test_a_separator_is_white_space(source, tmp_path):
    with pytest.raises(ConfigError, match="separator must be white space"):
        read(source, tmp_path, separator="<step>")


def completion(text, rating):
    return {"text": text, "rating": rating, "flagged": False}


PRM800K = {
    "is_quality_control_question": False, "is_initial_screening_question": False,
    "question": {"problem": "What is 2+3+4?", "ground_truth_answer": "9"},
    "label": {"finish_reason": "found_error", "steps": [
        {"completions": [completion("2+3 = 6", -1), completion("Add.", 0)],
         "human_completion": None, "chosen_completion": 1},
        {"completions": [completion("2*3", -1)], "chosen_completion": None,
         "human_completion": {"text": "2+3 = 5", "rating": None}},
        {"completions": [completion("5+4 = 8", -1), completion("Hm.", None)],
         "human_completion": None, "chosen_completion": None},
        {"completions": [completion("never reached", 1)], "human_completion": None,
         "chosen_completion": 0},
    ]},
}


@pytest.mark.parametrize(("neutral", "label"), [
    ("correct", [1.0]), ("incorrect", [0.0]), ("unlabelled", []),
])
def test_prm800k_gives_the_way_taken_and_its_alternatives(tmp_path, neutral, label):
    rows = read("prm800k", write(tmp_path / "rows.jsonl", [PRM800K]), neutral=neutral)
    assert [(row.chosen, row.step_labels) for row in rows] == [
        ("2+3 = 6", [0.0]),
        ("Add.\n\n2*3", [0.0]),
        ("Add.\n\n2+3 = 5\n\n5+4 = 8", [0.0]),
        ("Add.\n\n2+3 = 5", [*label, 1.0]),
    ]
    # Of an alternative, it alone is labelled.
    assert rows[2].step_ends == [len(rows[2].chosen)]
    assert len({row.id for row in rows}) == 4
    way = read("prm800k", tmp_path / "rows.jsonl", neutral=neutral, alternatives=False)
    assert [row.chosen for row in way] == ["Add.\n\n2+3 = 5"]


def test_prm800k_rows_that_tested_annotators_are_left_out(tmp_path):
    rows = [{**PRM800K, "is_initial_screening_question": True}, PRM800K]
    path = write(tmp_path / "rows.jsonl", rows)
    reading = Reading()
    assert len(read("prm800k", path, reading=reading)) == 4
    assert reading.dropped == {"that tested annotators": 1}
    assert len(read("prm800k", path, screening=True)) == 8


def test_prm800k_refuses_other_ratings(tmp_path):
    row = json.loads(json.dumps(PRM800K))
    row["label"]["steps"][0]["completions"][0]["rating"] = 2
    with pytest.raises(DataError, match="line 1: expected the ratings -1, 0, 1 or null, got 2"):
        read("prm800k", write(tmp_path / "rows.jsonl", [row]))
    with pytest.raises(ConfigError, match="Unknown value 'wrong' of neutral"):
        read("prm800k", tmp_path / "rows.jsonl", neutral="wrong")


SHEPHERD = {
    "input": "What is 2+3+4? Step 1: 2 + 3 = 5 ки\nStep 2: 5-4 = 1 ки", "task": "GSM8K",
    "label": "What is 2+3+4? Step 1: 2 + 3 = 5 +\nStep 2: 5-4 = 1 -",
}


def test_math_shepherd_aligns_marks(tmp_path):
    row = read("math_shepherd", write(tmp_path / "rows.jsonl", [SHEPHERD]))[0]
    assert row.prompt == "What is 2+3+4?"
    assert steps_of(row) == [("Step 1: 2 + 3 = 5", 1.0), ("Step 2: 5-4 = 1", 0.0)]
    assert row.subset == "GSM8K"


def test_math_shepherd_keeps_what_follows_the_last_mark_without_a_label(tmp_path):
    row = {key: value + (" So 9." if key != "task" else "") for key, value in SHEPHERD.items()}
    found = read("math_shepherd", write(tmp_path / "rows.jsonl", [row]))[0]
    assert found.chosen.endswith("So 9.")
    assert found.step_labels == [1.0, 0.0]


@pytest.mark.parametrize(("change", "message"), [
    # A mark in the question, which the labelled text has too.
    ({name: SHEPHERD[name].replace("What", "ки What") for name in ("input", "label")},
     r"with \+ or - for each of its 3 marks 'ки'; they differ behind 0 of them"),
    ({"label": SHEPHERD["label"].replace("5-4", "5+4")}, "differ behind 1 of them"),
    ({"label": SHEPHERD["label"][:-1]}, "differ behind 1 of them"),
    ({"label": SHEPHERD["label"] + " and more"}, "differ behind 2 of them"),
    ({"input": "No marks.", "label": "No marks."}, "each of its 0 marks"),
    ({name: SHEPHERD[name].replace("Step 1:", "First,") for name in ("input", "label")},
     r"first step that begins with 'Step 1:'; .* sources\.0\.options\.first"),
])
def test_math_shepherd_refuses_texts_that_do_not_match(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read("math_shepherd", write(tmp_path / "rows.jsonl", [{**SHEPHERD, **change}]))


def turns(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_rlhflow_conversations(tmp_path, name):
    path = write(tmp_path / "rows.jsonl", [
        {name: turns("What is 2+3? Step 1: 2+3 = 5.", "+", "Step 2: So 6.", "-")},
    ])
    row = read("rlhflow_steps", path)[0]
    assert row.prompt == "What is 2+3?"
    assert steps_of(row) == [("Step 1: 2+3 = 5.", 1.0), ("Step 2: So 6.", 0.0)]


@pytest.mark.parametrize(("found", "message"), [
    (turns("What? Step 1: a", "+", "Step 2: b"), r"by turns, got user, assistant, user"),
    (turns("What? Step 1: a", "good"), r"expected the answers \+ or -, got 'good'"),
    ([], "got none"),
    (turns("What? First a", "+"), "begins with 'Step 1:'"),
])
def test_other_conversations_are_refused(tmp_path, found, message):
    with pytest.raises(DataError, match=message):
        read("rlhflow_steps", write(tmp_path / "rows.jsonl", [{"conversations": found}]))


@shared
def test_published_rows_of_prm800k():
    path = SHARED / "samples_prm800k.jsonl.gz"
    rows = read("prm800k", path, screening=True)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    # Every rating counts once, and each step that was written by hand.
    rated = [
        one["rating"] for row in raw for step in row["label"]["steps"]
        for one in step["completions"] or [] if one["rating"] is not None
    ]
    written = sum(
        step["chosen_completion"] is None and step["human_completion"] is not None
        for row in raw for step in row["label"]["steps"]
    )
    labels = [label for row in rows for label in row.step_labels]
    assert labels.count(0.0) == rated.count(-1)
    assert labels.count(1.0) == rated.count(1) + rated.count(0) + written
    assert rows[0].prompt == raw[0]["question"]["problem"]


@shared
def test_published_rows_of_math_shepherd():
    path = SHARED / "samples_math-shepherd.jsonl.gz"
    rows = read("math_shepherd", path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    assert len(rows) == len(raw)
    for row, published in zip(rows, raw, strict=True):
        marks = "".join("+" if label else "-" for _, label in steps_of(row))
        texts = [text for text, _ in steps_of(row)]
        again = f"{row.prompt} " + "\n".join(
            f"{text} {mark}" for text, mark in zip(texts, marks, strict=True)
        )
        assert "".join(again.split()) == "".join(published["label"].split())


# --- tokens ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("tokenizer", [character_tokenizer(), chat_tokenizer("qwen")])
@pytest.mark.parametrize("text", ["a b.\n\ncc\n\nd", " a.\n\nb", "é.\n\nb\n\nc", "a\n\nb\n\n"])
def test_a_step_ends_with_the_token_that_reaches_its_end(tokenizer, text):
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ends = [at + 2 for at in range(len(text)) if text[at : at + 2] == "\n\n"]
    if ends[-1] < len(text.rstrip()):
        ends.append(len(text))
    found = step_lengths(text, ends, ids, tokenizer)
    plain = []
    for end in ends[:-1]:
        counts = [
            count for count in range(1, len(ids) + 1)
            if len(tokenizer.decode(ids[:count])) >= end
        ]
        plain.append(counts[0])
    # What ends with the text ends with the response, its closing token included.
    assert found == [*plain, len(ids)]


@pytest.mark.parametrize(("ends", "message"), [
    ([0], "Step 1 ends at character 0"), ([4, 4], "Step 2 ends at character 4"),
    ([99], "Step 1 ends at character 99"),
])
def test_ends_outside_the_text_are_refused(ends, message):
    tokenizer = character_tokenizer()
    with pytest.raises(DataError, match=message):
        step_lengths("abcdef", ends, tokenizer("abcdef")["input_ids"], tokenizer)


def test_two_steps_in_one_token_are_refused():
    tokenizer = chat_tokenizer("qwen")
    ids = tokenizer("a\n\nb", add_special_tokens=False)["input_ids"]
    with pytest.raises(DataError, match="Step 2 ends with the same token"):
        step_lengths("a\n\nb", [2, 3], ids, tokenizer)
    assert step_lengths("a\n\nb", [2, 3, 4], ids, tokenizer, merge=True) == [2, 3]


# --- prepared -------------------------------------------------------------------------------------

def prepared(folder, source, path, tokenizer, **changes):
    config = DataConfig(
        source={"name": source, "path": path}, test_fraction=0.5, drop_overlap=False, **changes
    )
    prepare(config, tokenizer, folder / "data")
    return [
        row for split in ("train", "test") for row in load_set(folder / "data", split, "partial")
    ]


@pytest.mark.parametrize("tokenizer", [character_tokenizer(), chat_tokenizer("llama3")])
def test_prepared_rows_say_where_labelled_steps_end(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", [STEPWISE, {**STEPWISE, "prompt": "And 1+1?"}])
    for row in prepared(tmp_path, "stepwise", path, tokenizer):
        assert row["rejected_ids"] == []
        assert row["pair_lengths"] == []
        assert row["step_labels"] == [0.0, 1.0, 1.0]
        texts = [tokenizer.decode(row["chosen_ids"][:length]) for length in row["step_lengths"]]
        assert texts[0] == "2+3 = 6.\n\n"
        assert texts[1] == "2+3 = 6.\n\n6+4 = 10.\n\n"
        assert row["step_lengths"][2] == len(row["chosen_ids"])


def test_rows_of_one_response_and_pairs_in_one_folder(tmp_path):
    pairs = [
        {"prompt": f"Question {i}?", "chosen": "Yes.", "rejected": f"No {i}."} for i in range(4)
    ]
    config = DataConfig(sources=[
        {"name": "stepwise", "path": write(tmp_path / "steps.jsonl", [
            STEPWISE, {**STEPWISE, "prompt": "And 1+1?"},
        ])},
        {"name": "pairs", "path": write(tmp_path / "pairs.jsonl", pairs)},
    ], test_fraction=0.4)
    prepare(config, character_tokenizer(), tmp_path / "data")
    rows = [
        row for split in ("train", "test") for row in load_set(tmp_path / "data", split, "partial")
    ]
    single = [row for row in rows if not row["rejected_ids"]]
    assert len(single) == 2
    assert len(rows) == 6
    assert all(row["step_lengths"] == [] for row in rows if row["rejected_ids"])


def test_measures_of_pairs_refuse_rows_of_one_response(tmp_path):
    path = write(tmp_path / "rows.jsonl", [STEPWISE])
    with pytest.raises(DataError, match="expected pairs of responses, the source stepwise gives"):
        held_out_pairs("stepwise", Path(path))
