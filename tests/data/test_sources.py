"""Sources on tiny files in the public schemas, on real rows, and on bad input."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset

from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.data.sources.hh import split_transcripts, to_messages
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Message

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared real rows are not here")


def load(name, split="train", **options):
    return list(SOURCES.get(name)(split, **options))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_tldr_published_and_trl_forms(tmp_path):
    published = {
        "info": {"post": "Long story."}, "summaries": [{"text": " bad"}, {"text": " good"}],
        "choice": 1,
    }
    first = load("tldr", path=write(tmp_path / "a.jsonl", [published]))[0]
    assert (first.prompt, first.chosen, first.rejected) == ("Long story.", "good", "bad")
    trl = {"prompt": "Long story.\n\nTL;DR:", "chosen": " good", "rejected": " bad"}
    second = load("tldr", path=write(tmp_path / "b.jsonl", [trl]))[0]
    assert second.model_dump(exclude={"id"}) == first.model_dump(exclude={"id"})


def test_tldr_bad_choice_names_the_line(tmp_path):
    row = {"info": {"post": "x"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2}
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: expected two summaries"):
        load("tldr", path=write(tmp_path / "a.jsonl", [row]))


def test_hh_static_and_transcripts(tmp_path):
    turns = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    transcript = {"chosen": turns + " kindly", "rejected": turns + " rudely"}
    static = {"prompt": turns, "chosen": " kindly", "rejected": " rudely"}
    for row in (transcript, static):
        one = load("hh", path=write(tmp_path / "a.jsonl", [row]))[0]
        assert (one.prompt, one.chosen, one.rejected) == (turns, " kindly", " rudely")


def test_hh_transcripts_become_messages(tmp_path):
    turns = "\n\nHuman: hi\n\nyou: there\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    row = {"chosen": turns + " kindly", "rejected": turns + " rudely"}
    path = write(tmp_path / "a.jsonl", [row])
    one = load("hh", path=path, messages=True)[0]
    assert [(turn.role, turn.content) for turn in one.prompt] == [
        ("user", "hi\n\nyou: there"), ("assistant", "hello"), ("user", "how?"),
    ]
    assert (one.chosen, one.rejected) == ("kindly", "rudely")
    assert to_messages("Human: a\n\nAssistant:", "row") == [Message(role="user", content="a")]
    for wrong in ("Human: a", "before\n\nHuman: a\n\nAssistant:", "", "\n\nAssistant:"):
        with pytest.raises(DataError, match="row: expected a transcript"):
            to_messages(wrong, "row")
    # The source pairs keeps them as text and says what a chat template makes of it.
    reading = Reading()
    assert next(SOURCES.get("pairs")("train", path=path, reading=reading)).prompt == turns
    assert len(reading.notes) == 1
    assert "options.messages=true" in reading.notes[0]


def test_csv_of_other_separators_says_what_is_expected(tmp_path):
    (tmp_path / "a.csv").write_text("prompt;chosen;rejected\na;b, c;d\n")
    with pytest.raises(DataError, match=(
        r"line 2: the heading has 1 column\(s\) \(prompt;chosen;rejected\), this row has 2 cell"
    )):
        load("pairs", path=str(tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("prompt,chosen,rejected\na,b\n")
    with pytest.raises(DataError, match=r"has 3 column\(s\).*this row has 2 cell"):
        load("pairs", path=str(tmp_path / "b.csv"))


def test_hh_transcripts_that_part_early_and_that_share_nothing():
    prompt, chosen, rejected = split_transcripts(
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "\n\nHuman: a\n\nAssistant: x", "row",
    )
    assert prompt == "\n\nHuman: a\n\nAssistant:"
    assert (chosen, rejected) == (" b\n\nHuman: c\n\nAssistant: d", " x")
    with pytest.raises(DataError, match="row: expected two transcripts"):
        split_transcripts("abc", "abd", "row")


def test_ultrafeedback_messages_and_margin(tmp_path):
    user = {"role": "user", "content": "q"}
    row = {
        "prompt": "q", "chosen": [user, {"role": "assistant", "content": "good"}],
        "rejected": [user, {"role": "assistant", "content": "bad"}],
        "score_chosen": 8.0, "score_rejected": 5.5,
    }
    one = load("ultrafeedback", path=write(tmp_path / "a.jsonl", [row]), score_margin=True)[0]
    assert one.prompt == [Message(role="user", content="q")]
    assert (one.chosen, one.rejected, one.margin) == ("good", "bad", 2.5)


def test_helpsteer_pairs_by_attribute(tmp_path):
    rows = [
        {"prompt": "p", "response": "a", "helpfulness": 1, "complexity": 3},
        {"prompt": "p", "response": "b", "helpfulness": 4, "complexity": 3},
        {"prompt": "q", "response": "c", "helpfulness": 2, "complexity": 0},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    one = load("helpsteer", path=path)
    assert [(c.chosen, c.rejected, c.margin) for c in one] == [("b", "a", 3.0)]
    assert load("helpsteer", path=path, attribute="complexity") == []
    with pytest.raises(ConfigError, match="Unknown attribute 'humour'"):
        load("helpsteer", path=path, attribute="humour")


def test_openmath_and_absent_fields(tmp_path):
    row = {"question": "1+1?", "correct": "2", "incorrect": "3"}
    one = load("openmath", path=write(tmp_path / "a.jsonl", [row]))[0]
    assert (one.prompt, one.chosen, one.rejected) == ("1+1?", "2", "3")
    bad = write(tmp_path / "b.jsonl", [{"question": "x", "answer": "y"}])
    with pytest.raises(DataError, match=r"correct, incorrect, found answer, question"):
        load("openmath", path=bad)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "arrow"])
def test_pairs_reads_every_form(tmp_path, suffix):
    rows = [{"prompt": "p\u2028x", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(3)]
    path = tmp_path / f"data.{suffix}"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix == "jsonl":
        path.write_text(text)
    elif suffix == "jsonl.gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["prompt", "chosen", "rejected"])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        Dataset.from_list(rows).save_to_disk(path)
    found = load("pairs", path=str(path))
    assert [(c.prompt, c.chosen, c.rejected) for c in found] == [
        ("p\u2028x", f"c{i}", f"r{i}") for i in range(3)
    ]


def test_pairs_implicit_prompt_mapping_and_conversations(tmp_path):
    implicit = write(tmp_path / "a.jsonl", [{"chosen": "Sky is blue", "rejected": "Sky is green"}])
    one = load("pairs", path=implicit)[0]
    assert (one.prompt, one.chosen, one.rejected) == ("Sky is", " blue", " green")
    mapped = write(tmp_path / "b.jsonl", [{"q": "p", "win": "c", "lose": "r", "gap": 2}])
    fields = {"prompt": "q", "chosen": "win", "rejected": "lose", "margin": "gap"}
    two = load("pairs", path=mapped, fields=fields)[0]
    assert (two.prompt, two.chosen, two.rejected, two.margin) == ("p", "c", "r", 2.0)
    with pytest.raises(DataError, match="expected the field\\(s\\) win, found"):
        load("pairs", path=implicit, fields=fields | {"prompt": "chosen"})
    user = {"role": "user", "content": "q"}
    explicit = {
        "prompt": [user], "chosen": [{"role": "assistant", "content": "c"}],
        "rejected": [{"role": "assistant", "content": "r"}],
    }
    three = load("pairs", path=write(tmp_path / "c.jsonl", [explicit]))[0]
    assert (three.prompt, three.chosen) == ([Message(role="user", content="q")], "c")


def test_pairs_refuses_identical_responses(tmp_path):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    path = write(tmp_path / "a.jsonl", [*rows, {"prompt": "p", "chosen": "x", "rejected": "x"}])
    with pytest.raises(DataError, match=r"line 2: chosen equals rejected"):
        load("pairs", path=path)
    assert len(load("pairs", path=path, identical="drop")) == 2  # prepare drops and counts them


def test_graded_layouts(tmp_path):
    flat = [
        {"question": "q", "generation": "good", "is_correct": True},
        {"question": "q", "generation": "bad", "is_correct": False},
        {"question": "only right", "generation": "good", "is_correct": True},
    ]
    one = load("graded", path=write(tmp_path / "a.jsonl", flat))
    assert [(c.prompt, c.chosen, c.rejected) for c in one] == [("q", "good", "bad")]
    with pytest.raises(DataError, match="line 1: expected a question and graded solutions"):
        load("graded", path=write(tmp_path / "b.jsonl", [{"question": "q", "text": "a"}]))


@pytest.mark.parametrize(("content", "message"), [
    ("", "holds no rows"),
    ('{"chosen": "a"\n', r"data\.jsonl, line 1: not valid JSON"),
    ('{"chosen": "a", "rejected": "b"}\n[1]\n', r"line 2: expected a JSON object, got list"),
    ('{"prompt": "a"}\n', r"expected the field\(s\) chosen, rejected, found prompt; columns of "
     r"other names are given as 'sources\.0\.options\.fields="),
    ('{"prompt": 3, "chosen": "a", "rejected": "b"}\n', "line 1: expected texts"),
])
def test_malformed_files_are_named(tmp_path, content, message):
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load("pairs", path=str(path))


def test_missing_file_unknown_ending_and_broken_parquet(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load("pairs", path=str(tmp_path / "none.jsonl"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="unknown ending"):
        load("pairs", path=str(tmp_path / "a.txt"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read"):
        load("pairs", path=str(tmp_path / "a.parquet"))


def test_file_has_no_test_split_and_folder_may(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    write(tmp_path / "train.jsonl", [row])
    with pytest.raises(NoSplitError):
        load("pairs", "test", path=str(tmp_path / "train.jsonl"))
    with pytest.raises(NoSplitError):
        load("pairs", "test", path=str(tmp_path))
    write(tmp_path / "test.jsonl", [row, row])
    assert len(load("pairs", "test", path=str(tmp_path))) == 2
    assert len(load("pairs", "train", path=str(tmp_path))) == 1


def test_arithmetic_pairs_are_right_and_wrong():
    from rewardsteer.data.sources.arithmetic import is_correct

    rows = load("arithmetic", rows=50)
    assert all(is_correct(row.prompt, row.chosen) for row in rows)
    assert not any(is_correct(row.prompt, row.rejected) for row in rows)
    assert rows == load("arithmetic", rows=50)
    assert rows != load("arithmetic", rows=50, seed=1)


@needs_shared
def test_real_harmless_transcripts():
    rows = load("hh", path=str(SHARED / "preference/hh_rlhf_harmless_base_test.jsonl.gz"))
    assert len(rows) == 2312
    assert all(row.prompt.endswith("Assistant:") for row in rows)
    assert sum("\n\nHuman:" in row.chosen for row in rows) < 20


@needs_shared
@pytest.mark.parametrize(("file", "questions"), [
    ("gsm8k/example_model_solutions.jsonl.gz", 1319), ("completions/GSM8K_multi.jsonl.gz", 1319),
])
def test_real_graded_solutions(file, questions):
    rows = load("graded", path=str(SHARED / file), max_pairs=1)
    assert questions / 3 < len(rows) <= questions
    assert all(row.chosen != row.rejected for row in rows)


@needs_shared
def test_real_conversations_of_llamafactory():
    rows = load("pairs", path=str(SHARED / "preference/llamafactory_dpo_en_demo.json.gz"))
    assert len(rows) == 300
    assert all(row.prompt[-1].role == "user" for row in rows)


def dropped(path, split="train"):
    reading = Reading(on_error="drop")
    rows = list(SOURCES.get("pairs")(split, path=str(path), reading=reading))
    return [row.prompt for row in rows], dict(reading.dropped), reading.notes


def test_faults_of_csv_rows_are_dropped_and_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"prompt,chosen,rejected\nq1,a,b\nq2,a\nq3,a,b,c\nq4,\xff,b\nq5,\xc3\xa9,b\nq6,a,\n"
    )
    prompts, counted, notes = dropped(path)
    assert prompts == ["q1", "q5", "q6"]
    assert counted == {"with a fault": 3}
    assert any("a.csv, line 3: the heading has 3 column(s)" in note for note in notes)
    for line, words in (
        ("q2,a", r"line 2: the heading has 3 column\(s\)"), ("q4,\udcff,b", "0xff"),
    ):
        path.write_bytes(f"prompt,chosen,rejected\n{line}\n".encode(errors="surrogateescape"))
        with pytest.raises(DataError, match=words):
            load("pairs", path=str(path))
    # A heading concerns every row.
    path.write_bytes(b"prompt,chosen,\xff\nq,a,b\n")
    with pytest.raises(DataError, match="line 1: expected UTF-8"):
        dropped(path)


def test_faults_of_parquet_rows_are_dropped_and_counted(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    count = 600
    texts = pa.array([b"x" if i != 300 else b"\xff" for i in range(count)])
    table = pa.table({
        "prompt": [f"q{i}" for i in range(count)], "chosen": ["a"] * count,
        "rejected": pa.Array.from_buffers(pa.string(), count, texts.buffers()),
    })
    pq.write_table(table, path)
    prompts, counted, notes = dropped(path)
    assert prompts == [f"q{i}" for i in range(count) if i != 300]
    assert counted == {"with a fault": 1}
    assert any("a.parquet, row 301: " in note for note in notes)
    with pytest.raises(DataError, match=r"a\.parquet, row 301: cannot be read"):
        load("pairs", path=str(path))
