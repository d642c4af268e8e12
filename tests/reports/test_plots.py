"""Plots: names that cover nothing, marks that differ, values where the points are, frontiers."""

import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from rewardsteer.evaluation.pareto import pareto
from rewardsteer.reports.drawing import STYLE, mark, plane
from rewardsteer.reports.label_places import Named, overlap, place_names
from rewardsteer.reports.plots import curves, intervals, paths
from rewardsteer.reports.plotted import Point, Spread


def circles(svg):
    """Place and text of each tip."""
    found = []
    for one in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle"):
        found.append((float(one.get("cx")), float(one.get("cy")), one[0].text))
    return found


def test_names_of_crowded_points_cover_neither_each_other_nor_a_point():
    rng = np.random.default_rng(0)
    # Thirteen methods, most of them in three clusters, as decoding methods are.
    spots = [(x + rng.normal() / 30, y + rng.normal() / 30) for x, y in
             [(0, 0)] * 5 + [(1, 1)] * 5 + [(0.1, 1)] * 3]
    points = [Named(x, y, y - 0.03, y + 0.05, f"method {i} of many"[: 8 + i])
              for i, (x, y) in enumerate(spots)]
    with mpl.rc_context(STYLE):
        figure, axes = plane("x", "y", 3.8)
        axes.plot(*zip(*spots, strict=True), "o")
        axes.margins(x=0.18, y=0.15)
        boxes = place_names(figure, axes, points)
    assert max(overlap(*two) for two in itertools.combinations(boxes, 2)) == 0
    scale = 72 / figure.dpi
    for x, y in spots:
        at = axes.transData.transform((x, y)) * scale
        assert not any(b.left < at[0] < b.right and b.low < at[1] < b.high for b in boxes)


def test_twenty_methods_have_marks_that_differ_in_shape_and_lines_that_differ_in_colour_and_dash():
    marks = [mark(index) for index in range(22)]
    assert len({(one.marker, one.hollow) for one in marks}) == 22
    assert len({(one.colour, one.dash) for one in marks}) == 22


def test_values_are_where_the_points_are():
    svg = paths(
        [[Point("a", 1, 2, 1.5, 3)], [Point("b", 10, 4)], [Point("c", 100, 3)]],
        x_label="s", y_label="reward", log_x=True,
    )
    (ax, ay, a), (bx, by, b), (cx, cy, _) = circles(svg)
    assert a == "a\nreward: 2 (1.5 to 3)\ns: 1"
    assert b == "b\nreward: 4\ns: 10"
    assert bx - ax == pytest.approx(cx - bx, abs=0.2)  # a logarithmic axis
    assert ay - by == pytest.approx(2 * (ay - cy), abs=0.2)  # y grows upwards
    # matplotlib draws each marker by <use> at the point's own place.
    drawn = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: #', svg)
    for x, y in ((ax, ay), (bx, by), (cx, cy)):
        assert any(abs(float(u) - x) < 0.1 and abs(float(v) - y) < 0.1 for u, v in drawn)


def test_long_lines_keep_few_values_and_both_ends():
    xs = list(range(500))
    told = [text for _, _, text in circles(curves({"": (xs, xs)}, x_label="x", y_label="y"))]
    assert len(told) == 60
    assert (told[0], told[-1]) == ("y: 0\nx: 0", "y: 499\nx: 499")


def test_intervals_keep_both_their_lengths():
    svg = intervals(["a"], {"": {"a": Spread(1.0, 0.68, 1.0)}}, x_label="share")
    [(x, _, text)] = circles(svg)
    assert text == "a\nshare: 1 (0.68 to 1)"
    ends = [float(number) for number in re.search(
        r'<g id="LineCollection_1">\s*<path d="M ([\d.]+) [\d.]+ \s*L ([\d.]+)', svg
    ).groups()]
    assert max(ends) == pytest.approx(x, abs=0.1)  # nothing beyond one
    assert min(ends) < x - 20


def test_a_frontier_is_what_no_other_dominates():
    rng = np.random.default_rng(1)
    for _ in range(200):
        choices = {str(i): (int(c), int(v)) for i, (c, v) in
                   enumerate(rng.integers(0, 5, size=(rng.integers(1, 9), 2)))}
        plain = {
            name for name, (cost, value) in choices.items()
            if not any(c <= cost and v >= value and (c, v) != (cost, value)
                       for c, v in choices.values())
        }
        found = pareto(choices)
        assert set(found) == plain
        assert len(found) == len(plain)
        assert [choices[name][0] for name in found] == sorted(choices[name][0] for name in found)


def test_the_frontier_is_drawn_and_named():
    points = [Point("cheap", 1, 1), Point("worse", 2, 0.5), Point("dear", 3, 2)]
    svg = paths([points], x_label="x", y_label="y", frontier=True)
    bold = [text for style, text in re.findall(r'<text style="([^"]*)"[^>]*>([^<]*)', svg)
            if "bold" in style or "700" in style]
    assert bold == ["cheap", "dear"]
    assert [text.split("\n")[0] for _, _, text in circles(svg)] == [
        "cheap, on the frontier", "worse", "dear, on the frontier",
    ]
