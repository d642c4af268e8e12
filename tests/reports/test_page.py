"""The page: escaped, self-contained, well-formed; plots deterministic."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.reports.inspector import inspector
from rewardsteer.reports.page import policy_of, write_page
from rewardsteer.reports.plots import curves, histograms, intervals, paths
from rewardsteer.reports.plotted import Point, Spread
from rewardsteer.reports.sections import (
    Answer,
    Cell,
    Figure,
    Figures,
    Flips,
    Folded,
    Heading,
    Matrix,
    Prose,
    Sample,
    Samples,
    Section,
    Settings,
    Table,
    Tile,
    Tiles,
)
from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows

VOID = {"meta", "br", "img", "link", "hr", "input"}


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
    evil = "<script>alert(1)</script>\"'</p>"
    answers = [Answer(0, evil, 0.5, True), Answer(1, evil, 0.1)]
    record = Inspection(id=evil, label=evil, prompt=evil, completion=evil)
    html, _ = page(tmp_path, [
        Prose(evil), Heading(evil), Table(evil, [evil], [[evil]]), Settings({evil: evil}, evil),
        Samples(evil, [evil, evil], [Sample(evil, answers)]), Tiles([Tile(evil, evil, evil)]),
        Matrix(evil, [evil], [[Cell(evil, evil)]]), Folded(evil, [Prose(evil)]),
        Flips(evil, [evil], [evil], [(evil, evil)], [[[0.5]]], {"0": [evil]}),
        Figure("<svg></svg>", evil, evil), Figures([Figure("<svg></svg>", evil, evil)]),
        inspector([record]),
    ])
    # Its own script, and data; what is in those cannot end them.
    assert len(re.findall("<script", html)) == 3
    assert html.count("&lt;script&gt;") >= 20
    pairs, inspected = re.findall(
        r'<script type="application/json" id="[^"]+">(.*?)</script>', html
    )
    assert "<" not in pairs + inspected
    assert json.loads(pairs)["responses"]["0"] == [evil]
    assert json.loads(inspected)[0]["prompt"] == evil
    assert "T &lt;b&gt;" in html


def test_plots_escape_names():
    evil = "<script>&$x_1$</text>"
    svg = curves({evil: ([1, 2], [1, 2]), "_b": ([1, 2], [2, 1])}, x_label=evil, y_label=evil)
    assert "<script" not in svg
    drawn, told = svg.split('<g class="tips">')
    assert drawn.count("&lt;script&gt;&amp;$x_1$&lt;/text&gt;") == 3
    assert told.count("&lt;script&gt;&amp;$x_1$&lt;/text&gt;") == 2 + 2 * 2  # names, and both axes
    assert "\u200b_b" in svg


def test_page_needs_nothing_from_outside(tmp_path):
    svg = paths(
        [[Point("a", 1.0, 2.0, 1.9, 2.4)], [Point("b", 10.0, 1.0)]], x_label="x", y_label="y"
    )
    html, parser = page(tmp_path, [Figure(svg, "alt", "caption")])
    for name, value in parser.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#")
        assert not name.startswith("on")
    assert ("aria-label", "alt") in parser.attributes
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_the_policy_names_the_pages_own_script_and_style(tmp_path):
    html, _ = page(tmp_path, [Prose("x")])
    policy = policy_of(html)
    for tag, directive in (("script", "script-src"), ("style", "style-src-elem")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_plots_of_a_page_have_their_own_names(tmp_path):
    svg = curves({"a": ([1, 2], [1, 2])}, x_label="x", y_label="y")
    html, parser = page(tmp_path, [Figure(svg, "a", ""), Figure(svg, "b", "")])
    names = [value for name, value in parser.attributes if name == "id"]
    assert len(set(names)) == len(names)
    for used in re.findall(r"url\(#([^)]+)\)", html):
        assert used in names
    assert "var(--s1, #" in html


@pytest.mark.parametrize("draw", [
    lambda: paths([[Point("a", 1.0, 2.0, 1.9, 2.4)]], x_label="x", y_label="y", log_x=True),
    lambda: curves({"a": ([1, 2], [0.5, 0.7])}, x_label="x", y_label="y"),
    lambda: curves({"a": ([0, 1], [0.5, 0.7])}, x_label="x", y_label="y", diagonal=True),
    lambda: histograms([0, 1, 2], {"a": [1, 2], "b": [0, 0]}, x_label="x"),
    lambda: intervals(
        ["a", "b"], {"x": {"a": Spread(1, 0, 2)}, "y": {"b": Spread(1, 1, 1)}}, x_label="x"
    ),
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
    assert cells["accuracy (95 %)"] == "–"


def test_a_run_looks_the_same_in_every_plot_of_a_page():
    from rewardsteer.reports.drawing import COLOURS
    from rewardsteer.reports.training import training_figures

    rows = [{"phase": "1", "step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
    both = [row | {"constraint_violation": 0.5 / row["step"]} for row in rows]
    figures = training_figures({"bt": rows, "farma": both}, ("loss", "constraint_violation"))
    loss, violation = (str(figure.svg).lower() for figure in figures)
    first, second = COLOURS[0].lower(), COLOURS[1].lower()
    assert first in loss
    assert second in loss
    # Only one run has it: it keeps its colour, and its name stands there.
    assert second in violation
    assert first not in violation
