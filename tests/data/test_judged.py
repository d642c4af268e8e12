"""Instruction-judging sets: each layout on small files, bad rows, and the real files."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Message

SHARED = (Path(__file__).parents[2] / "../shared/data/preference").resolve()
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"the real rows are not at {SHARED}")

LLMBAR = {"input": "Add 1 and 2.", "output_1": "3", "output_2": "12", "label": 1}
PANDALM = {
    "idx": 0, "motivation_app": "Sums", "cmp_key": "a_b", "instruction": "Add.", "input": "1, 2",
    "response1": "12", "response2": "3", "annotator1": 2, "annotator2": 1, "annotator3": 2,
}
DPO = {
    "conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "1+2?"},
    ],
    "chosen": {"from": "gpt", "value": "3"}, "rejected": {"from": "gpt", "value": "12"},
}


def load(path, split="train", **options):
    return list(SOURCES.get("judged")(split, path=str(path), **options))


def write(path, *rows):
    content = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def votes(*values):
    return PANDALM | {f"annotator{number}": value for number, value in enumerate(values, start=1)}


def test_llmbar(tmp_path):
    path = write(tmp_path / "adv_manual.json.gz", LLMBAR, LLMBAR | {"label": 2})
    first, second = load(path)
    assert (first.prompt, first.chosen, first.rejected) == ("Add 1 and 2.", "3", "12")
    assert (second.prompt, second.chosen, second.rejected) == ("Add 1 and 2.", "12", "3")
    assert (first.source, first.subset, first.margin) == ("judged", "adv_manual", 0.0)
    assert first.id != second.id


def test_pandalm(tmp_path):
    bare = {name: value for name, value in PANDALM.items() if name != "cmp_key"} | {"input": ""}
    nameless = {name: value for name, value in bare.items() if name != "motivation_app"}
    rows = load(write(tmp_path / "a.json", PANDALM, bare, nameless))
    assert [row.prompt for row in rows] == ["Add.\n\n1, 2", "Add.", "Add."]
    assert {(row.chosen, row.rejected) for row in rows} == {("3", "12")}
    assert [row.subset for row in rows] == ["a_b", "Sums", ""]


@pytest.mark.parametrize(("given", "chosen"), [
    ((1, 1, 1), "12"), ((1, 1, 2), "12"), ((0, 1, 1), "12"), ((2, 0, 2), "3"), ((1, 2, 2), "3"),
    ((0, 0, 0), None), ((0, 0, 1), None), ((2, 0, 0), None), ((0, 1, 2), None), ((2, 1, 0), None),
])
def test_the_majority_decides_and_ties_are_left_out(tmp_path, given, chosen):
    rows = load(write(tmp_path / "a.json", votes(*given), votes(2, 2, 2)))
    assert [row.chosen for row in rows] == ([chosen] if chosen else []) + ["3"]


def test_a_text_that_became_a_value_is_text_again(tmp_path):
    row = load(write(tmp_path / "a.json", PANDALM | {"response1": 12, "response2": True}))[0]
    assert (row.chosen, row.rejected) == ("True", "12")


def test_llamafactory(tmp_path):
    plain, with_system = load(write(
        tmp_path / "a.json", DPO, DPO | {"conversations": DPO["conversations"][1:], "system": "S"}
    ))
    turns = [
        Message(role="user", content="Hi"), Message(role="assistant", content="Hello"),
        Message(role="user", content="1+2?"),
    ]
    assert plain.prompt == [Message(role="system", content="Be brief."), *turns]
    assert with_system.prompt == [Message(role="system", content="S"), *turns]
    assert (plain.chosen, plain.rejected, plain.source) == ("3", "12", "judged")


def test_folders(tmp_path):
    write(tmp_path / "b.json.gz", LLMBAR)
    write(tmp_path / "a.json", LLMBAR, PANDALM)
    (tmp_path / "c.jsonl").write_text(json.dumps(DPO) + "\n")
    (tmp_path / "README.md").write_text("Not data.")
    rows = load(tmp_path)
    assert [row.subset for row in rows] == ["a", "a_b", "b", ""]
    assert len({row.id for row in rows}) == 4
    with pytest.raises(NoSplitError):
        load(tmp_path, "test")
    # With splits by name the other files are none of ours.
    write(tmp_path / "test.json", LLMBAR | {"label": 2})
    assert [row.chosen for row in load(tmp_path, "test")] == ["12"]
    write(tmp_path / "train.json", PANDALM)
    assert [row.prompt for row in load(tmp_path)] == ["Add.\n\n1, 2"]


@pytest.mark.parametrize(("row", "message"), [
    (LLMBAR | {"label": 3}, r"a\.json, row 1: expected 1 or 2 as label, got 3"),
    (LLMBAR | {"label": True}, "expected 1 or 2 as label, got True"),
    (LLMBAR | {"label": None}, "expected 1 or 2 as label, got None"),
    (LLMBAR | {"output_2": None}, "expected a text as output_2, got NoneType"),
    (votes(1, 1, -1), "expected 0 or 1 or 2 as annotator3, got -1"),
    (PANDALM | {"response2": ["x"]}, "expected a text as response2, got list"),
    (DPO | {"conversations": []}, "row 1: expected a prompt"),
    (DPO | {"conversations": "Hi"}, "found a text"),
    (DPO | {"conversations": [{"from": "observation", "value": "x"}]}, "found 'observation'"),
    (DPO | {"chosen": {"from": "gpt"}}, "row 1: expected texts or lists of messages"),
    ({"input": "x", "output_1": "y"}, r"row 1: expected .* llmbar .*; found input, output_1"),
])
def test_bad_rows(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "a.json", row))


def test_bad_requests(tmp_path):
    with pytest.raises(ConfigError, match="needs the path"):
        list(SOURCES.get("judged")("train"))
    path = write(tmp_path / "a.json", LLMBAR)
    with pytest.raises(ConfigError, match="Unknown layout 'mtbench'; known: auto, llmbar"):
        load(path, layout="mtbench")
    with pytest.raises(DataError, match=r"row 1: expected the field\(s\) instruction, response1"):
        load(path, layout="pandalm")
    assert load(path, layout="llmbar") == load(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Expected train\.jsonl .* found nothing"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "absent")


@needs_shared
def test_real_llmbar():
    rows = load(SHARED / "llmbar")
    assert Counter(row.subset for row in rows) == {
        "adv_gptinst": 92, "adv_gptout": 47, "adv_manual": 46, "adv_neighbor": 134, "natural": 100,
        "proc_faireval": 66, "proc_llmeval2": 200, "proc_mtbench": 200,
    }
    assert len({row.id for row in rows}) == 885
    assert rows[0].prompt == 'What does the phrase "smaller fish to fry" mean?'
    assert rows[0].chosen.startswith('The phrase "smaller fish')


@needs_shared
def test_real_pandalm():
    # 999 rows, 105 of them ties; nobody voted three ways.
    rows = load(SHARED / "pandalm_testset-v1.json.gz")
    raw = json.loads(gzip.decompress((SHARED / "pandalm_testset-v1.json.gz").read_bytes()))
    first = [row for row in raw if [row[f"annotator{i}"] for i in (1, 2, 3)].count(1) >= 2]
    assert len(rows) == 894
    assert len(first) == 422
    places = {int(row.id.rsplit("-", 1)[1]): row for row in rows}
    assert all(places[row["idx"]].chosen == str(row["response1"]) for row in first)
    assert len({row.subset for row in rows}) == 10


@needs_shared
def test_real_llamafactory():
    rows = load(SHARED / "llamafactory_dpo_en_demo.json.gz")
    assert len(rows) == 300
    assert sum(row.prompt[0].role == "system" for row in rows) == 80
    assert {row.prompt[-1].role for row in rows} == {"user"}
