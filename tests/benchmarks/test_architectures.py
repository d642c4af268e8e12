"""The table of architectures: its page follows from its numbers, and some are measured again."""

import json

import pytest

from benchmarks.architectures import COLUMNS, PAGE, RESULT, measure, page, shown


def test_the_page_is_made_of_the_numbers():
    written = json.loads(RESULT.read_text(encoding="utf-8"))
    results = written["architectures"]
    assert PAGE.read_text(encoding="utf-8") == page(results, written["transformers"])
    assert len(results) >= 40
    cells = [shown(column, row[column]) for row in results.values() for column in COLUMNS]
    assert not [cell for cell in cells if cell.startswith("no")]


@pytest.mark.parametrize(("name", "expected"), [
    ("llama", ("yes", "yes", "yes", "cache", "both")),
    ("mixtral", ("yes", "yes", "yes", "cache", "both")),
    ("granite", ("yes", "yes", "yes", "cache", "vocabulary")),
    ("bloom", ("yes", "yes", "padded", "cache", "both")),
    ("mamba", ("yes", "yes", "padded", "whole", "vocabulary")),
    ("lfm2", ("yes", "yes", "padded", "whole", "vocabulary")),
])
def test_cells_measured_again(name, expected):
    cells = measure(name)
    assert tuple(shown(column, cells[column]) for column in COLUMNS) == expected
