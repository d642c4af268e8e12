"""Tables on terminals of any width."""

import os
import re

import pytest
from rich.console import Console

from rewardsteer.reports import tables

COLUMNS = ("method", "reward", "gain over baseline (95 %)", "accuracy", "LM calls", "RM calls")
ROWS = [
    ["none", "+0.123 ± 0.010", "+0.000 (+0.000, +0.000)", "–", "1.00", "–"],
    ["speculative_rejection", "+1.123 ± 0.010", "+1.000 (+0.900, +1.100)", "–", "1.00", "0.50"],
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """rich remembers the mapping of its import; datasets replaces it when it maps in processes."""
    monkeypatch.setitem(Console.__init__.__kwdefaults__, "_environ", os.environ)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_table_fits_the_terminal_in_parts(width, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    tables.print_table("20 prompts", COLUMNS, ROWS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    for row in ROWS:
        for cell in row:
            assert cell == "–" or any(cell in line for line in lines), cell
    # Nothing was measured there.
    assert not any("accuracy" in line for line in lines)


def test_a_pipe_gets_the_table_whole_and_the_title_in_one_line(monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    tables.print_table("a title that is longer than the table is wide", ("a", "b"), [["1", "2"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a title that is longer than the table is wide"
    tables.print_table("x", COLUMNS, ROWS)
    assert sum("none" in line for line in capsys.readouterr().out.splitlines()) == 1


def test_a_markdown_table_keeps_its_columns_whatever_the_cells_hold():
    text = tables.markdown(["a", "p(y|x)"], [["one|two", "1"]])
    assert text == "| a | p(y\\|x) |\n| --- | --- |\n| one\\|two | 1 |"
