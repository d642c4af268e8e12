"""Rows and folders as users bring them: every form that is read, and the sentence of each fault."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from rewardsteer.configuration import load_config
from rewardsteer.data.config import DataConfig
from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.data.sources.conversations import from_conversations, split_texts
from rewardsteer.data.sources.reading import Reading
from rewardsteer.decoding.requests import read_requests
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.reward_benchmarks.rm_bench import RmBench
from rewardsteer.records import Message

USER = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
ROW = {"prompt": "p", "chosen": "a", "rejected": "b"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def read(row, **options):
    return from_conversations(row, "f.jsonl, line 3", id="x", **options)


def load(name, split="train", **options):
    return list(SOURCES.get(name)(split, **options))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("chosen", "rejected"), [
    ("It is 1.", "It is 5."), ("The sky is blue.", "The sky is black."), ("a", "ab"), ("ab", "a b"),
    ("x\ny z", "x\ny  w"), ("same", "same"), ("Q: why? A: so", "Q: why? A:  so"),
])
def test_implicit_prompts_end_where_trl_cuts(chosen, rejected):
    trl = pytest.importorskip("trl.data_utils")
    theirs = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
    assert split_texts(chosen, rejected) == (
        theirs["prompt"], theirs["chosen"], theirs["rejected"]
    )


def test_what_stands_where_only_one_text_is_empty():
    assert split_texts("", "b") == ("", "", "b")
    assert split_texts(" a", "b") == ("", " a", "b")


def test_tools_calls_parts_and_null_contents():
    turns = [
        USER | {"content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "1?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "name": "add", "weight": None},
    ]
    tool = {"name": "add", "parameters": {"type": "object"}}
    one = read({"prompt": turns, "chosen": [GOOD], "rejected": [BAD], "tools": [tool]})
    assert one.prompt == [
        Message(role="user", content="1+1?"),
        Message(role="assistant", content="", tool_calls=[CALL]),
        Message(role="tool", content="2", name="add"),
    ]
    assert one.tools == [{"type": "function", "function": tool}]
    share = {
        "conversations": [
            {"from": "human", "value": "1+1?"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": "2"},
        ],
        "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"},
        "tools": json.dumps([tool]), "system": "S",
    }
    two = read(share)
    assert two.tools == one.tools
    assert two.prompt[0] == Message(role="system", content="S")
    assert [m.role for m in two.prompt[1:]] == ["user", "assistant", "tool"]
    assert two.prompt[2].tool_calls == [CALL]


def test_message_lists_that_are_written_as_texts():
    row = {
        "prompt": "q", "chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD]),
    }
    one = read(row)
    assert (one.prompt, one.chosen) == ([Message(**USER)], "good")
    # As pandas writes lists into a table.
    two = read(row | {"chosen": str([USER, GOOD]), "rejected": str([USER, BAD])})
    assert (two.prompt, two.chosen, two.rejected) == (one.prompt, one.chosen, one.rejected)
    # An answer that only looks like it stays text.
    assert read(ROW | {"chosen": "[{'a': __import__('os')}]"}).chosen.startswith("[{'a'")
    assert read(ROW | {"chosen": "[1]"}).chosen == "[1]"


def test_prompts_under_other_names_and_in_two_places():
    assert read({"messages": [USER], "chosen": "a", "rejected": "b"}).prompt == [Message(**USER)]
    alpaca = {"instruction": "Add.", "input": "1, 2", "output": ["3", "4"], "history": [["h", "i"]]}
    one = read(alpaca)
    assert [message.content for message in one.prompt] == ["h", "i", "Add.\n1, 2"]
    assert (one.chosen, one.rejected) == ("3", "4")
    system = {"role": "system", "content": "S"}
    two = read({"prompt": [system], "chosen": [USER, GOOD], "rejected": [USER, BAD]})
    assert [message.role for message in two.prompt] == ["system", "user"]
    thought = GOOD | {"reasoning_content": "hm"}
    three = read({"prompt": [USER], "chosen": [thought], "rejected": [BAD]})
    assert three.chosen == "<think>\nhm\n</think>\n\ngood"


def test_texts_that_share_no_beginning_have_their_prompt_elsewhere():
    row = {"user_input": "Who was that?", "chosen": "It was Ann.", "rejected": "No idea."}
    with pytest.raises(DataError, match=r"line 3: found no prompt, .*fields\.prompt=user_input"):
        read(row)
    assert read(row | {"prompt": ""}).prompt == ""
    # A word that says where a row is from is no prompt, and there may be none.
    assert read({"chosen": "It was Ann.", "rejected": "No idea.", "source": "chat"}).prompt == ""
    assert read(row | {"rejected": "It was Bob."}).prompt == "It was"


def test_conversations_that_part_early():
    talk = {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]}
    with pytest.raises(DataError, match=r"line 3: .*part at message 2 .*parted=first"):
        read(talk)
    assert read(talk, parted="drop") == "that part before the last turn"
    first = read(talk, parted="first")
    assert (first.prompt, first.chosen, first.rejected) == ([Message(**USER)], "good", "bad")


@pytest.mark.parametrize(("changes", "message"), [
    ({"prompt": 3}, "prompt is a number (3)."),
    ({"rejected": ["b", "c"]}, "rejected holds a list of 2 texts"),
    ({"chosen": None}, "expected text or messages in chosen, found null."),
    ({"chosen": []}, "chosen is an empty list."),
    ({"prompt": [{"role": "user", "content": None}]}, "message 1 of prompt 'content' is null."),
    ({"prompt": [USER, {"role": "user"}]}, "message 2 of prompt there is no 'content', only role."),
    ({"prompt": [{"content": "x"}]}, "message 1 of prompt there is no 'role', only content."),
    ({"prompt": [USER | {"content": 5}]}, "message 1 of prompt 'content' is a number (5)."),
    ({"prompt": [USER | {"content": [{"type": "image"}]}]}, "part 1 of 'content' is image;"),
    ({"prompt": ["x"]}, "message 1 of prompt is text."),
    ({"prompt": [{"from": "usr", "value": "x"}]}, "message 1 of prompt 'from' is 'usr'"),
    ({"prompt": [{"from": "function_call", "value": "{"}]}, "the function_call is not valid JSON"),
    ({"prompt": [{"from": "observation", "value": "x"}]}, "found 'observation' first"),
    ({"chosen": [USER, GOOD], "rejected": "b"}, "chosen is a list and rejected is text."),
    ({"chosen": [GOOD], "rejected": [USER]}, "one of the role 'user'"),
    ({"chosen": [{"role": "assistant", "tool_calls": [CALL]}], "rejected": [BAD]}, "a tool call"),
    ({"prompt": "other", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "it is another text"),
    ({"margin": float("nan")}, "a margin of 0 or more"), ({"margin": -1}, "got -1."),
    ({"margin": "much"}, "expected a number as margin, got text."),
    ({"margin": True}, "expected a number as margin"),
    ({"tools": "{"}, "tools is not valid JSON"), ({"tools": [1]}, "expected a list of functions"),
])
def test_faults_name_row_message_and_key(changes, message):
    with pytest.raises(DataError) as caught:
        read(ROW | changes)
    said = str(caught.value)
    assert said.startswith("f.jsonl, line 3: ")
    assert message in said
    assert not said.rstrip(".").endswith("Error)")


@pytest.mark.parametrize(("fields", "test"), [
    (("train", "test"), "test"), (("train_prefs", "test_prefs"), "test_prefs"),
    (("train", "validation"), "validation"), (("all",), None), (("train", "dev", "test"), "test"),
    (("train", "eval"), "eval"),
])
@pytest.mark.parametrize("form", ["saved", "files", "folders"])
def test_splits_under_any_name(tmp_path, form, fields, test):
    folder = tmp_path / "d"
    rows = {name: [ROW | {"prompt": f"{name} {i}"} for i in range(3)] for name in fields}
    if form == "saved":
        DatasetDict({n: Dataset.from_list(r) for n, r in rows.items()}).save_to_disk(folder)
    for name, held in rows.items():
        if form == "files":
            write(folder / f"{name}.jsonl", held)
        elif form == "folders":
            write(folder / name / "part-0.jsonl", held)
    reading = Reading()
    found = load("pairs", path=str(folder), reading=reading)
    assert [one.prompt for one in found] == [row["prompt"] for row in rows[fields[0]]]
    if test is None:
        with pytest.raises(NoSplitError):
            load("pairs", "test", path=str(folder))
        return
    held = load("pairs", "test", path=str(folder), reading=reading)
    assert [one.prompt for one in held] == [row["prompt"] for row in rows[test]]
    if test in ("validation", "eval"):
        assert any("is read as the test split" in note for note in reading.notes)
    if len(fields) == 3:
        assert any("dev is not read" in note for note in reading.notes)


def test_splits_that_must_be_named(tmp_path):
    parts = {name: Dataset.from_list([ROW]) for name in ("en", "de")}
    DatasetDict(parts).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"it has en, de; say.*splits=\{train: NAME"):
        load("pairs", path=str(tmp_path / "d"))
    named = Reading(splits={"train": "en", "test": "de"})
    assert len(load("pairs", path=str(tmp_path / "d"), reading=named)) == 1
    assert len(load("pairs", "test", path=str(tmp_path / "d"), reading=named)) == 1
    with pytest.raises(DataError, match="Expected the split 'fr'"):
        load("pairs", path=str(tmp_path / "d"), reading=Reading(splits={"train": "fr"}))


def test_a_saved_data_set_an_arrow_file_and_json_lines_in_json(tmp_path):
    Dataset.from_list([ROW] * 2).save_to_disk(tmp_path / "d")
    assert len(load("pairs", path=str(tmp_path / "d"))) == 2
    assert len(load("pairs", path=str(next((tmp_path / "d").glob("*.arrow"))))) == 2
    assert len(load("pairs", path=write(tmp_path / "a.json", [ROW] * 3))) == 3
    parted = tmp_path / "b.json"
    parted.write_text(json.dumps([ROW | {"prompt": f"p{i}" * 99} for i in range(9000)], indent=1))
    found = load("pairs", path=str(parted))
    assert [one.prompt for one in found] == [f"p{i}" * 99 for i in range(9000)]


@pytest.mark.parametrize(("text", "message"), [
    ("[{},", "not valid JSON after row 1"), ("[{} {}]", "expected a comma"), ("[{}", "comma"),
    ("[{},]", "not valid JSON"), ("[{}] x", "something follows"), ("3", "of objects, got int"),
    ("[[[", "not valid JSON"), ("[" * 100000, "nested too deeply"),
    ("[3]", "row 1: expected a JSON"),
])
def test_broken_json_lists(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text.replace("{}", json.dumps(ROW)))
    with pytest.raises(DataError, match=message):
        load("pairs", path=str(tmp_path / "a.json"))


def test_a_hub_data_set_with_its_options(monkeypatch):
    asked = []

    def fake(path, split=None, **options):
        asked.append((path, split, options))
        parts = {"train_sft": [ROW], "train_prefs": [ROW] * 2, "validation": [ROW] * 3}
        if split is None:
            return DatasetDict({key: Dataset.from_list(rows) for key, rows in parts.items()})
        raise ValueError(f"Unknown split {split!r}.")

    monkeypatch.setattr("datasets.load_dataset", fake)
    reading = Reading(hub="me/mine", config="c", revision="r", data_dir="d")
    assert len(load("pairs", reading=reading)) == 2
    assert len(load("pairs", "test", reading=reading)) == 3
    assert asked[0] == ("me/mine", "train", {"name": "c", "revision": "r", "data_dir": "d"})


@pytest.mark.parametrize("of_hub", [{"hub": "me/mine"}, {"config": "c"}, {"revision": "r"}])
def test_settings_of_the_hub_are_not_of_local_data(of_hub):
    with pytest.raises(ConfigError, match=f"sources.* wrong: .* {next(iter(of_hub))} a data set"):
        load_config(DataConfig, {"source": {"name": "pairs", "path": "rows.jsonl", **of_hub}})


def test_half_a_surrogate_pair_is_named_and_can_be_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{json.dumps(ROW)}\n{{"prompt": "smile \\ud83d"}}\n{json.dumps(ROW)}\n')
    with pytest.raises(DataError, match=r"line 2: .*half of a surrogate pair, \\ud83d, is no text"):
        load("pairs", path=str(path))
    reading = Reading(on_error="drop")
    assert len(load("pairs", path=str(path), reading=reading)) == 2
    assert reading.dropped == {"with a fault": 1}
    assert "line 2" in reading.notes[0]


@pytest.mark.parametrize(("name", "good", "bad"), [
    ("pairs", ROW, ROW | {"chosen": None}), ("hh", ROW, ROW | {"chosen": 3}),
    ("tldr", ROW, {"prompt": "p"}), ("ultrafeedback", ROW, {"chosen": []}),
    ("helpsteer", {"prompt": "p", "response": "a", "helpfulness": 1},
     {"prompt": "p", "response": "b", "helpfulness": float("nan")}),
    ("openmath", {"question": "q", "correct": "a", "incorrect": "b"}, {"question": 1}),
    ("graded", {"question": "q", "generation": "a", "is_correct": True}, {"question": "q"}),
    ("judged", {"input": "x", "output_1": "a", "output_2": "b", "label": 1}, {"input": "x"}),
])
def test_every_source_drops_faults_where_it_is_asked_to(tmp_path, name, good, bad):
    path = write(tmp_path / "a.jsonl", [good, bad, good])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: "):
        load(name, path=path)
    reading = Reading(on_error="drop")
    load(name, path=path, reading=reading)
    assert reading.dropped == {"with a fault": 1}


def test_articles_are_no_posts(tmp_path):
    row = {"info": {"post": "P"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}
    article = row | {"info": {"post": None, "article": "News."}}
    reading = Reading()
    found = load("tldr", path=write(tmp_path / "a.jsonl", [row, article]), reading=reading)
    assert [one.prompt for one in found] == ["P"]
    assert reading.dropped == {"without a post": 1}


def test_ids_that_are_null_or_missing_are_made(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW | {"id": None}, ROW, ROW | {"id": ""}, ROW | {"id": 7}])
    found = [one.id for one in load("pairs", path=path)]
    assert found == ["pairs-train-0", "pairs-train-1", "pairs-train-2", "7"]


def test_optional_fields_that_are_null_count_as_absent(tmp_path):
    """As tables write them, which have every column in every row."""
    prompts = write(tmp_path / "p.jsonl", [
        {"id": None, "prompt": "a", "prompt_ids": None}, {"id": None, "prompt": "b"},
        {"id": 0, "prompt": "c"},
    ])
    assert [one.id for one in read_requests(Path(prompts))] == ["1", "2", "0"]
    (tmp_path / "q.jsonl").write_text('{"prompt": null}\n')
    with pytest.raises(DataError, match="expected a field 'prompt'"):
        read_requests(tmp_path / "q.jsonl")
    rated = {"prompt": "p", "response": "r", "rating": 1, "id": None, "subset": None}
    (row,) = load("ratings", path=write(tmp_path / "r.jsonl", [rated]))
    assert (row.id, row.subset) == ("ratings-train-0", "")
    labelled = {"prompt": "p", "completion": "r", "label": True, "id": None, "subset": None}
    (row,) = load("labels", path=write(tmp_path / "l.jsonl", [labelled]))
    assert (row.id, row.subset) == ("labels-train-0", "")
    row = {
        "id": None, "prompt": "p", "domain": "math", **{
            name: ["a", "b", "c"] for name in ("chosen", "rejected")
        },
    }
    assert RmBench().read(row, 3, "here").id == "math/3"
