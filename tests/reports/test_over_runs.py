"""Figures over several runs on a page: where they are found, and how much runs differ."""

import json
import re

import numpy as np
import pytest

from rewardsteer.errors import DataError
from rewardsteer.outputs import read_jsonl
from rewardsteer.reports.over_runs import over_runs_section
from rewardsteer.reports.runs import write_runs_page
from rewardsteer.reports.sources import Sources, load_runs
from rewardsteer.reports.tables import SEED_COLUMNS
from tests.reports.results import over_runs
from tests.reports.test_plots import circles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return over_runs(tmp_path_factory.mktemp("root") / "seeds")


@pytest.fixture(scope="module")
def means(folder):
    """Mean reward of each run by method, from the records."""
    files = {"none": "none.jsonl", "best_of_n": "best_of_n.jsonl"}
    return {
        label: [
            np.mean([row["metrics"]["reward"]
                     for _, row in read_jsonl(folder / f"seed-{seed}" / name)])
            for seed in range(3)
        ]
        for label, name in files.items()
    }


def figure_of(section, title):
    return next(one for one in section.blocks[1].figures if one.alt == title)


def test_the_folder_of_seeds_is_found_with_its_runs(folder):
    names = ["seeds", "seed-0", "seed-1", "seed-2"]
    for given in (folder, folder.parent):
        assert [run.name.split("/")[-1] for run in load_runs([given], Sources())] == names
    alone = load_runs([folder / "seeds.json"], Sources())
    assert [run.over_runs["baseline"] for run in alone] == ["none"]
    assert alone[0].settings["run.json"]["model"] == "policy"


def test_a_file_of_evaluate_runs_has_any_name_and_others_are_refused(folder, tmp_path):
    content = (folder / "seeds.json").read_text()
    (tmp_path / "five.json").write_text(content)
    assert [run.name for run in load_runs([tmp_path / "five.json"], Sources())] == ["five"]
    # What 'evaluate benchmark --runs' writes has the name, and other figures.
    (tmp_path / "runs.json").write_text(json.dumps({"rewardbench2": {}}))
    for place in (tmp_path / "runs.json", tmp_path):
        with pytest.raises(DataError, match="a file that 'evaluate runs' wrote"):
            load_runs([place], Sources())


def test_each_run_is_drawn_and_told(folder, means):
    section = over_runs_section(load_runs([folder / "seeds.json"], Sources()))
    told = [text for _, _, text in circles(figure_of(section, "Mean reward").svg)]
    spread = np.std(means["best_of_n"], ddof=1)
    [whole] = [text for text in told if text.startswith("best_of_n\n")]
    assert whole.splitlines()[2] == f"standard deviation of the runs: {spread:.4g}"
    for seed, mean in enumerate(means["best_of_n"]):
        said = f"{mean:.4g}".replace("-", "−")
        assert f"best_of_n, seed-{seed}\nmean reward: {said}" in told
    gains = [text for _, _, text in circles(figure_of(section, "Gain in mean reward").svg)]
    for seed in range(3):
        gain = f"{means['best_of_n'][seed] - means['none'][seed]:.4g}".replace("-", "−")
        assert f"best_of_n, seed-{seed}\ngain in mean reward: {gain}" in gains
    assert not any(text.startswith("none") for text in gains)


def test_the_table_has_the_spread_of_each_figure(folder, means):
    section = over_runs_section(load_runs([folder / "seeds.json"], Sources()))
    table = section.blocks[2]
    assert table.columns == SEED_COLUMNS
    row = dict(zip(table.columns, table.rows[1], strict=True))
    gains = np.subtract(means["best_of_n"], means["none"])
    assert row["method"] == "best_of_n"
    assert row["SD of reward"] == f"{np.std(means['best_of_n'], ddof=1):.3f}"
    assert row["SD of gain"] == f"{np.std(gains, ddof=1):.3f}"
    assert row["gain over baseline (95 %)"].startswith(f"{np.mean(gains):+.3f} (")
    assert len(set(table.columns)) == len(table.columns)
    assert "3 runs" in section.blocks[0].text


def test_two_runs_are_too_few_to_rely_on(tmp_path):
    folder = over_runs(tmp_path / "two", seeds=2, prompts=4)
    write_runs_page([folder / "seeds.json"], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "A reliable interval needs at least 3 runs" in html
    assert "no intervals: 4 prompts" in html
    # At a glance: the spread beside the best mean.
    assert re.search(r"mean of 2 runs \(SD 0\.\d{3}\)", html)


def test_a_file_without_single_runs_shows_means_and_their_deviation(folder, tmp_path):
    content = json.loads((folder / "seeds.json").read_text())
    del content["by_run"]
    (tmp_path / "runs.json").write_text(json.dumps(content))
    section = over_runs_section(load_runs([tmp_path], Sources()))
    told = [text for _, _, text in circles(figure_of(section, "Mean reward").svg)]
    assert len(told) == 4
    assert all("standard deviation of the runs" in text for text in told)
