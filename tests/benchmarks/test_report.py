"""Turns of the runs, sections of the report, and tables that cannot run."""

import json

import pytest

from benchmarks.__main__ import TABLES, main
from benchmarks.harness import CannotRun, alone, in_turn, rates
from benchmarks.report import Table, markdown, refresh

ROW = {"case": "a case", "ours": 1234.5, "other": 0.5, "ratio": 2.0, "unit": "x/s"}


def test_every_other_run_goes_backwards():
    calls = []

    def side(name):
        def call():
            calls.append(name)
            return float(ord(name))

        return call

    found = in_turn([side("a"), side("b"), side("c")], 3)
    assert "".join(calls) == "abccbaabc"
    assert found == [[97.0, 98.0, 99.0]] * 3


def test_ratios_are_of_neighbours():
    row = rates("x", [[1.0, 2.0], [4.0, 20.0], [2.0, 6.0]], work=12, unit="y/s")
    assert (row["ours"], row["other"]) == (6.0, 2.0)
    assert (row["low"], row["ratio"], row["high"], row["runs"]) == (2.0, 3.0, 5.0, 3)


def test_a_process_of_its_own_answers_or_says_why():
    with pytest.raises(RuntimeError, match="No module named"):
        alone("benchmarks.absent")


def test_a_section_is_replaced_between_its_markers_alone():
    text = (
        "# R\n\nwords\n\n<!-- table: a -->\nold a\n<!-- end -->\n\nmore\n\n"
        "<!-- table: b -->\nold b\n<!-- end -->\ntail\n"
    )
    fresh = refresh(text, "a", "new a")
    assert fresh == text.replace("old a", "new a")
    assert refresh(fresh, "b", "new b") == fresh.replace("old b", "new b")
    added = refresh(text, "c", "new c")
    assert added == text + "\n## c\n\n<!-- table: c -->\nnew c\n<!-- end -->\n"
    assert refresh(added, "c", "newer") == added.replace("new c", "newer")


def test_a_section_without_end_is_refused():
    text = "<!-- table: a -->\nold a\n\n<!-- table: b -->\nold b\n<!-- end -->\n"
    with pytest.raises(ValueError, match="not closed"):
        refresh(text, "a", "new")


def test_markdown_shows_spread_and_further_columns():
    rows = [
        ROW | {"low": 1.5, "high": 2.5, "runs": 3, "prefixes": 1200},
        ROW | {"note": "words"},
    ]
    assert markdown(rows, "TRL").splitlines() == [
        "| case | ours | TRL | unit | ratio | prefixes | note |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| a case | 1,234 | 0.50 | x/s | 2.00 (1.50 … 2.50) | 1,200 |  |",
        "| a case | 1,234 | 0.50 | x/s | 2.00 |  | words |",
    ]


def test_tables_are_kept_and_published(tmp_path, capsys):
    tables = {"first": Table(lambda: [ROW], "TRL", "A setup.")}
    main([], tmp_path, tables)
    kept = json.loads((tmp_path / "results" / "first.json").read_text())
    assert kept["rows"] == [ROW]
    assert kept["command"] == "make bench TABLE=first"
    assert kept["machine"]["versions"].keys() == {"torch", "transformers", "trl"}
    report = (tmp_path / "RESULTS.md").read_text()
    assert "| case | ours | TRL |" in report
    assert "A setup." in report
    assert kept["date"] in report
    assert kept["machine"]["cpu"] in report
    assert "a case" in capsys.readouterr().out


def test_a_table_that_cannot_run_says_so_and_leaves_the_old_one(tmp_path, capsys):
    def refuse():
        raise CannotRun("there is no GPU here.")

    before = "# R\n\n<!-- table: a -->\nold a\n<!-- end -->\n"
    (tmp_path / "RESULTS.md").write_text(before)
    main(["a"], tmp_path, {"a": Table(refuse, "TRL", "")})
    assert (tmp_path / "RESULTS.md").read_text() == before
    assert not (tmp_path / "results").exists()
    assert capsys.readouterr().out.strip() == "a: there is no GPU here."


def test_unknown_tables_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"Unknown table\(s\) heads; known: bradley_terry"):
        main(["heads"], tmp_path)


def test_every_table_says_what_it_was_measured_on():
    for table in TABLES.values():
        assert table.other
        assert table.setup.endswith(".")
