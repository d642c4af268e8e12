"""Result folders: what is found, what several runs share, and what a damaged file says."""

import json
import math
import re
import xml.etree.ElementTree as ET

import pytest

from rewardsteer.errors import DataError
from rewardsteer.reports.drawing import COLOURS
from rewardsteer.reports.runs import write_runs_page
from rewardsteer.reports.sources import Sources, load_runs
from rewardsteer.reports.training import series, training_figures
from tests.reports.results import (
    comparison,
    correctness,
    everything,
    inspections,
    preferences,
    training,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("runs"))


def headings(html):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_a_folder_of_runs_stands_for_those_within_it(root):
    runs = {run.name: run for run in load_runs([root], Sources())}
    assert runs.keys() == {
        "bt", "farma", "accuracy-bt", "accuracy-farma", "correctness-plain", "correctness-goal",
        "evaluation", "inspected", "runs",
    }
    assert runs["bt"].training
    assert runs["bt"].settings["run.json"]["config"]["seed"] == 0
    assert runs["accuracy-bt"].preference["too_long"] == 3
    assert runs["correctness-goal"].correctness.keys() == {"gsm8k"}
    assert [len(rows) for rows in runs["evaluation"].records.values()] == [12] * 4
    assert len(runs["inspected"].inspections) == 3


def test_correctness_of_an_earlier_version_is_refused_in_a_sentence(tmp_path):
    folder = correctness(tmp_path / "c")
    metrics = json.loads((folder / "metrics.json").read_text())
    for row in metrics["gsm8k"]["by_samples"]:
        del row["questions"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(DataError, match=r"earlier version.*run 'rewardsteer evaluate correctness'"):
        load_runs([folder], Sources())


def test_one_run_gives_its_own_sections_alone(tmp_path):
    write_runs_page([training(tmp_path / "bt")], tmp_path / "r.html")
    assert headings((tmp_path / "r.html").read_text()) == ["At a glance", "Training", "Settings"]
    write_runs_page([inspections(tmp_path / "i")], tmp_path / "r.html")
    assert headings((tmp_path / "r.html").read_text()) == ["Token by token", "Settings"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    preferences(tmp_path / "a" / "accuracy")
    preferences(tmp_path / "b" / "accuracy", shift=2)
    runs = load_runs([tmp_path / "a" / "accuracy", tmp_path / "b" / "accuracy"], Sources())
    assert [run.name for run in runs] == ["a/accuracy", "b/accuracy"]
    assert len(load_runs([tmp_path, tmp_path / "a"], Sources())) == 2
    again = tmp_path / "a" / ".." / "a"
    assert len(load_runs([tmp_path, again], Sources())) == 2


@pytest.mark.parametrize("name", ["metrics.json", "inspections.jsonl"])
def test_a_file_of_a_folder_is_refused_with_the_folder(tmp_path, name):
    preferences(tmp_path)
    inspections(tmp_path)
    with pytest.raises(DataError, match=rf"got the file .*{name}; give its folder"):
        load_runs([tmp_path / name], Sources())


def test_the_fingerprint_is_of_all_files_that_were_read(tmp_path):
    run = comparison(tmp_path / "run")

    def fingerprint():
        sources = Sources()
        load_runs([run], sources)
        return sources.fingerprint, len(sources.digests)

    before = fingerprint()
    assert before == fingerprint()
    assert before[1] == 6  # summary, run and four methods
    with (run / "none.jsonl").open("a") as stream:
        stream.write("\n")
    assert fingerprint()[0] != before[0]
    write_runs_page([run], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert html.count(fingerprint()[0]) == 2
    assert "fingerprints.out/bt/model" in html


def test_updates_are_counted_over_phases():
    rows = [{"phase": "a", "step": 5, "loss": 1.0}, {"phase": "a", "step": 10, "loss": 0.5},
            {"phase": "b", "step": 5, "loss": 0.25}, {"phase": "b", "step": 5, "eval_loss": 9}]
    assert series(rows, "loss") == ([5, 10, 15], [1.0, 0.5, 0.25])
    steps, values = series(rows, "loss", broken=True)
    assert steps == [5, 10, 10, 15]
    assert [str(one) for one in values] == ["1.0", "0.5", "nan", "0.25"]


def test_losses_of_two_objectives_are_no_line_and_both_are_seen():
    rows = [{"phase": phase, "step": step, "loss": loss} for phase, losses in
            (("1-bradley_terry", (0.7, 0.6)), ("2-max_constraint", (36.0, 30.0)))
            for step, loss in enumerate(losses, start=1)]

    def drawn(rows):
        [figure] = training_figures({"farma": rows}, ["loss"])
        page = ET.fromstring(str(figure.svg))
        [line] = [one for one in page.iter("{http://www.w3.org/2000/svg}path")
                  if COLOURS[0].lower() in (one.get("style") or "")]
        spots = [float(one.get("cy")) for one in page.iter("{http://www.w3.org/2000/svg}circle")]
        return line.get("d").count("M "), spots

    pieces, (first, second, third, fourth) = drawn(rows)
    assert pieces == 2
    # As far apart as their logarithms, so that the small losses are no flat line.
    share = (second - first) / (third - first)
    assert share == pytest.approx(math.log(0.6 / 0.7) / math.log(36 / 0.7), rel=0.05)
    assert fourth > third
    pieces, (first, second, third, _) = drawn([row | {"loss": row["loss"] - 1} for row in rows])
    assert (second - first) / (third - first) == pytest.approx(-0.1 / 35.3, rel=0.5)
    assert pieces == 2


def test_figures_of_older_files_are_left_out(tmp_path):
    place = preferences(tmp_path / "old") / "metrics.json"
    metrics = json.loads(place.read_text())
    for name in ("histogram", "reward_by_length"):
        del metrics[name]
    place.write_text(json.dumps(metrics))
    write_runs_page([tmp_path / "old"], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "Calibration" in html
    assert "Reward against length" not in html


@pytest.mark.parametrize(("name", "content", "message"), [
    (None, "", "Expected results in"),
    ("metrics.jsonl", "", "hold no log lines"),
    ("metrics.json", "{", "not valid JSON"),
    ("summary.json", "{}", "hold no log lines, figures, methods"),
    ("inspections.jsonl", '{"id": 1}\n', "line 1: no inspection"),
    ("metrics.jsonl", "[1]\n", "line 1: expected a JSON object"),
    ("metrics.jsonl", '{"step": 1}\n{"step": null}\n', r"metrics\.jsonl, line 2: .*step"),
    ("metrics.jsonl", '{"step": 1, "phase": [1]}\n', "line 1: .*phase"),
    ("summary.json", "[1]", r"summary\.json: .*no result of rewardsteer"),
    ("summary.json", '{"methods": ["a"]}', r"summary\.json: .*methods"),
    ("summary.json", '{"methods": {"a": {}}}', r"summary\.json: .*reward"),
    ("overoptimization.json", '{"curve": [1]}', r"overoptimization\.json: .*curve"),
    ("runs.json", '{"methods": {}, "runs": [], "baseline": "a"}', r"runs\.json: .*methods"),
])
def test_a_folder_without_results_or_with_damaged_ones(tmp_path, name, content, message):
    (tmp_path / "run").mkdir()
    if name:
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DataError, match=message):
        write_runs_page([tmp_path / "run"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_record_that_is_none(tmp_path):
    run = comparison(tmp_path / "run")
    (run / "none.jsonl").write_text('{"generation": {}}\n')
    with pytest.raises(DataError, match=r"none\.jsonl, line 1: no evaluation record"):
        write_runs_page([run], tmp_path / "r.html")


def test_benchmarks_and_agreement_have_sections(tmp_path):
    """What `evaluate benchmark`, `responses`, `guide` and `answers` write, each cell by hand."""
    place = {"low": 0.5, "high": 0.75}
    contents = {
        "rewardbench2": {"rewardbench2": {
            "out/bt": {"Math": {"score": 0.625, "questions": 40, "random": 0.25, **place}},
            "out/goal": {"Math": {"score": 0.5, "questions": 40, "random": 0.25}},
        }},
        "ratings": {"reward_model": "out/bt", "numbers": {"rating": {
            "count": 45, "prompts": 15, "pearson": 0.5, "pearson_low": 0.25, "pearson_high": 0.75,
        }}},
        "guide": {
            "reward_model": "out/d", "teacher": "pargs", "weight": 2.0, "figures": {
                "lost_share": {"value": 0.125, "low": None, "high": None, "count": 9},
                "rank_correlation": {"value": None, "low": None, "high": None, "count": 0},
            },
        },
        "answers": {"gsm8k": {"solutions": 8, "predicted": 0.875, "extracted": 1.0}},
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(content))
    write_runs_page([tmp_path], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert headings(html) == ["Public benchmarks", "Agreement", "Settings"]
    rows = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr.*?</tr>", html, re.S)]
    cells = [[cell.strip() for cell in row.split("|") if cell.strip()] for row in rows]
    assert ["Math", "0.625 (0.500 – 0.750)", "0.500", "40", "0.250"] in cells
    assert ["rating", "45", "15", "0.500 (0.250, 0.750)"] in cells
    assert ["lost share", "0.125", "9"] in cells
    assert ["rank correlation", "–", "0"] in cells
    assert ["gsm8k", "8", "0.875", "1.000"] in cells
