"""The page: escaped, self-contained, well-formed; plots deterministic."""

import json
import re
from html.parser import HTMLParser

import pytest

from rewardsteer.errors import DataError
from rewardsteer.reports.page import write_page
from rewardsteer.reports.plots import Point, bars, curves, scatter
from rewardsteer.reports.runs import write_runs_page
from rewardsteer.reports.sections import Figure, Prose, Samples, Section, Settings, Table
from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows

VOID = {"meta", "br", "img", "link", "hr"}


class Balance(HTMLParser):
    """Fails on a closing tag that does not match; keeps all attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(tmp_path, blocks):
    write_page(tmp_path / "p.html", "T <b>", "S & co", [Section("One", "one", blocks)])
    html = (tmp_path / "p.html").read_text()
    parser = Balance()
    parser.feed(html)
    assert not parser.open
    return html, parser


def test_text_is_escaped_everywhere(tmp_path):
    evil = "<script>alert(1)</script>\"'"
    html, _ = page(tmp_path, [
        Prose(evil), Table(evil, [evil], [[evil]]), Samples(evil, [evil], [[evil, evil]]),
        Settings({evil: evil}), Figure("<svg></svg>", evil, evil),
    ])
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 9
    assert "T &lt;b&gt;" in html


def test_page_needs_nothing_from_outside(tmp_path):
    svg = scatter([Point("a", 1.0, 2.0, 0.1), Point("b", 10.0, 1.0)], x_label="x", y_label="y")
    _, parser = page(tmp_path, [Figure(svg, "alt", "caption")])
    for name, value in parser.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#")
    assert ("aria-label", "alt") in parser.attributes


@pytest.mark.parametrize("draw", [
    lambda: bars(["a", "b"], [0.1, 0.9], [0.01, 0.0], x_label="share", reference=0.5),
    lambda: scatter([Point("a", 1.0, 2.0, 0.1)], x_label="x", y_label="y", log_x=True),
    lambda: curves({"a": ([1, 2], [0.5, 0.7])}, x_label="x", y_label="y"),
])
def test_plots_are_deterministic_and_follow_the_page(draw):
    first = draw()
    assert first == draw()
    assert first.startswith("<svg")
    assert "currentColor" in first
    assert "#123457" not in first
    assert not re.search(r'<svg[^>]* height="', first)


def test_table_shows_what_was_measured_and_a_dash_for_the_rest():
    rows = method_rows({"a": {"reward": 1.0, "reward_stderr": 0.25, "seconds_per_token": 0.002}})
    cells = dict(zip(METHOD_COLUMNS, rows[0], strict=True))
    assert cells["reward"] == "+1.000 ± 0.250"
    assert cells["ms"] == "2.00"
    assert cells["accuracy"] == "–"


def test_runs_page_and_a_folder_without_results(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(DataError, match="Expected an evaluation in"):
        write_runs_page([run], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    methods = {"none": {"reward": 0.5, "seconds_per_token": 0.01}}
    (run / "summary.json").write_text(json.dumps({"methods": methods}))
    write_runs_page([run], tmp_path / "r.html")
    assert "+0.500" in (tmp_path / "r.html").read_text()
