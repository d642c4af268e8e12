"""Reward against costs: what is drawn and what the tables say, from result files alone."""

import json
import re

from rewardsteer.reports.frontiers import (
    FRONTIER_COLUMNS,
    WIN_COLUMNS,
    frontier_rows,
    frontiers,
    win_rows,
)
from rewardsteer.reports.plots import paths
from rewardsteer.reports.plotted import Point
from rewardsteer.reports.runs import write_runs_page

METHODS = {
    label: {
        "reward": reward, "reward_low": reward - 0.1, "reward_high": reward + 0.2,
        "reward_gain": reward, "surprise": 1.5, "seconds_per_response": 0.25,
        "seconds_per_token": 0.01, "rm_calls_per_token": calls, "equivalent_tokens": 123.4,
    }
    for label, reward, calls in (
        ("none", 0.0, 0), ("farma w=1", 0.5, 1), ("farma w=2", 0.75, 1), ("best", 0.6, 0.5),
    )
}
METHODS["best"] |= {
    "kl_bound": 1.204, "draws": 8.0, "budget_used": 98.7, "win_rate": 0.625, "win_rate_low": 0.3,
    "win_rate_high": 0.9, "wins": 5, "ties": 0, "losses": 3, "no_verdict": 2,
}
SUMMARY = {
    "methods": METHODS, "baseline": "none", "sweeps": {"farma": ["farma w=1", "farma w=2"]},
}


def test_rows():
    cells = dict(zip(FRONTIER_COLUMNS, frontier_rows(METHODS)[3], strict=True))
    assert cells["reward (95 %)"] == "+0.600 (+0.500, +0.800)"
    assert (cells["KL bound"], cells["draws"], cells["budget used"]) == ("1.20", "8", "98.7")
    assert cells["equivalent tokens"] == "123.4"
    assert cells["coherence"] == "–"
    assert win_rows(METHODS) == [["best", "0.625 (0.300, 0.900)", "–", "5", "0", "3", "2", "–"]]
    unsaid = {"x": {"wins": 0, "ties": 0, "losses": 0, "no_verdict": 4}}
    assert dict(zip(WIN_COLUMNS, win_rows(unsaid)[0], strict=True))["win rate (95 %)"] == "–"


def test_a_plot_for_every_axis_that_was_measured():
    drawn = frontiers(SUMMARY)
    assert drawn.keys() == {"surprise", "seconds", "calls", "tokens"}
    assert drawn == frontiers(SUMMARY)
    known = {"methods": {label: one | {"kl": 1.5} for label, one in METHODS.items()}}
    assert frontiers(known).keys() == drawn.keys() | {"kl"}
    for svg in drawn.values():
        for label in METHODS:
            assert svg.count(f">{label}<") == 1
    assert "no KL divergence" in drawn["surprise"]
    old = {"methods": {label: {"reward": 1.0, "seconds_per_response": 2.0} for label in "ab"}}
    assert frontiers(old).keys() == {"seconds"}
    old["methods"]["a"]["surprise"] = 1.0  # of one method alone, there is nothing to compare
    assert frontiers(old).keys() == {"seconds"}


def test_the_points_of_a_line_share_a_colour():
    def colours(svg):
        return set(re.findall(r"stroke: (#[0-9a-f]{6})", svg))

    first, second = Point("a", 1, 1), Point("b", 2, 2)
    assert len(colours(paths([[first, second]], x_label="x", y_label="y"))) == 1
    assert len(colours(paths([[first], [second]], x_label="x", y_label="y"))) == 2


def test_the_page_shows_frontiers_and_win_rates(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    write_runs_page([run], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    for label in (
        "negative log-likelihood", "seconds per response", "calls per token",
        "policy-equivalent tokens",
    ):
        assert len(re.findall(rf"<figcaption><b>Reward against [^<]*{label}", html)) == 1
    assert "difference to none" in html
    assert "0.625 (0.300, 0.900)" in html
