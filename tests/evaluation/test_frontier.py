"""Value against cost over folders of comparisons written by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.equal_cost import at_equal
from rewardsteer.evaluation.frontier import frontier
from rewardsteer.evaluation.frontier_methods import load_methods
from rewardsteer.evaluation.statistics import paired_difference, two_level
from rewardsteer.outputs import file_name
from rewardsteer.records import Cost, EvalRecord, Generation

PROMPTS = 24
# Method → reward above the prompt's own, KL, seconds, weight.
PLAIN = {"none": (0.0, 0.0, 1.0, 0.0), "cold": (-0.2, 0.5, 1.0, 0.0)}
HEAD = {"head w=1": (0.5, 0.4, 1.2, 1.0), "head w=2": (1.0, 0.8, 1.2, 2.0)}
SLOW = {"slow w=1": (0.6, 0.5, 3.0, 1.0), "slow w=2": (1.2, 0.9, 3.0, 2.0)}


def write_run(folder, seed, methods, *, prompts=PROMPTS, baseline="none"):
    """A finished comparison; rewards are the prompt's, the method's and noise of the seed."""
    folder.mkdir(parents=True)
    own, values = np.random.default_rng(0).normal(size=prompts), {}
    for number, (label, (above, *_)) in enumerate(methods.items()):
        noise = np.random.default_rng([seed, number, len(methods)]).normal(size=prompts)
        values[label] = own + above + 0.1 * noise
        (folder / file_name(label)).write_text("".join(
            EvalRecord(
                generation=Generation(
                    id=f"{row:02}", prompt=f"p{row}", completion="x", token_ids=[1],
                    finish_reason="stop", method=label, cost=Cost(new_tokens=1),
                ),
                metrics={"reward": reward, "accuracy": float(reward > 0.3)},
            ).model_dump_json() + "\n" for row, reward in enumerate(values[label])
        ))
    sweeps = {name: [one for one in methods if one.startswith(f"{name} w=")]
              for name in ("head", "slow")}
    (folder / "summary.json").write_text(json.dumps({
        "baseline": baseline, "sweeps": {name: labels for name, labels in sweeps.items() if labels},
        "weights": {label: row[3] for label, row in methods.items()},
        "methods": {
            label: {
                "length": 10.0, "lm_forwards_per_token": 1.0, "seconds_per_response": seconds,
                "rm_forwards_per_token": float(seconds > 1), "equivalent_tokens": 20 * seconds,
                "kl": kl + 0.01 * seed,
            }
            for label, (_, kl, seconds, _) in methods.items()
        },
    }))
    return values


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("frontier")
    runs = [write_run(place / f"a{seed}", seed, PLAIN | HEAD) for seed in range(3)]
    other = write_run(place / "b0", 0, PLAIN | SLOW)
    folders = [*(place / f"a{seed}" for seed in range(3)), place / "b0"]
    return folders, runs, other


def test_gains_are_paired_within_folders_and_taken_over_runs(world):
    folders, runs, _ = world
    found = frontier(*load_methods(folders), metrics=["reward"])
    one = found["methods"]["head w=2"]
    wanted = two_level(np.array([run["head w=2"] - run["none"] for run in runs]))
    assert one["runs"] == 3
    assert [one[f"reward_gain{end}"] for end in ("", "_low", "_high", "_spread")] == pytest.approx(
        [wanted.value, wanted.low, wanted.high, wanted.spread]
    )
    assert (one["seconds"], one["passes"], one["tokens"]) == pytest.approx((1.2, 20.0, 24.0))
    assert one["kl"] == pytest.approx(0.81)
    assert found["methods"]["none"]["runs"] == 4
    assert "reward_gain" not in found["methods"]["none"]
    assert found["intervals"].endswith("24 prompts and 4 runs")


def test_pareto_sets_and_the_best_that_costs_no_more(world):
    folders, runs, other = world
    found = frontier(*load_methods(folders), metrics=["reward"], controls=["cold"])
    assert found["pareto"]["reward"]["seconds"] == ["none", "head w=2", "slow w=2"]
    steps = {one["method"]: one for one in found["steps"]["reward"]["seconds"]}
    # They lie in one folder of the same number, b0, with none alone; head ran in others.
    assert steps["slow w=2"]["rival"] == "slow w=1"
    gain = paired_difference(other["slow w=2"], other["slow w=1"])
    assert steps["slow w=2"]["difference"] == pytest.approx(gain.value)
    assert steps["slow w=2"]["difference_low"] == pytest.approx(gain.low)
    assert steps["head w=1"]["rival"] == "head w=2"  # Which takes no longer.
    assert steps["head w=1"]["difference_high"] < 0
    assert steps["slow w=2"]["beats_controls"]
    assert steps["none"]["beats_controls"]
    assert "beats_controls" not in steps["cold"]
    by_kl = {one["method"]: one for one in found["steps"]["reward"]["kl"]}
    assert "rival" not in by_kl["none"]
    assert by_kl["head w=1"]["rival"] == "none"
    wanted = two_level(np.array([run["head w=1"] - run["none"] for run in runs]))
    assert by_kl["head w=1"]["difference"] == pytest.approx(wanted.value)


def test_sweeps_are_read_off_at_equal_kl(world):
    folders, runs, _ = world
    methods, baseline = load_methods(folders[:3])
    [row] = at_equal(methods, baseline, "reward", "kl", 0.6)
    by_hand = []
    for seed, run in enumerate(runs):
        part = (0.6 - 0.4 - 0.01 * seed) / 0.4
        by_hand.append((1 - part) * run["head w=1"] + part * run["head w=2"] - run["none"])
    wanted = two_level(np.array(by_hand))
    assert (row["gain"], row["gain_low"]) == pytest.approx((wanted.value, wanted.low))
    assert (row["sweep"], row["runs"]) == ("head", 3)
    assert at_equal(methods, baseline, "reward", "kl", 2.0)[0]["reach"] == pytest.approx(
        [0.41, 0.81]
    )
    both, _ = load_methods([folders[0], folders[3]])
    rows = at_equal(both, baseline, "reward", "kl", 0.6)
    assert [one["sweep"] for one in rows] == ["head", "slow"]
    assert "behind" not in rows[1]  # No folder holds both.


def test_the_command_writes_tables_and_plots_with_names(world, tmp_path):
    folders, *_ = world
    out = tmp_path / "out"
    line = ["evaluate", "frontier", *map(str, folders), "--out", str(out), "--control", "cold",
            "--at", "kl=0.6", "--metric", "reward"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    content = json.loads((out / "frontier.json").read_text())
    assert content["controls"] == ["cold"]
    assert [row["sweep"] for row in content["equal"]] == ["head", "slow"]
    text = (out / "frontier.md").read_text()
    assert "beats these in both reward and seconds: none, head w=2, slow w=2." in text
    assert "| cold (control) | 4 |" in text
    lines = (out / "frontier.csv").read_text().splitlines()
    assert len(lines) == 1 + len(content["methods"])
    assert lines[0].startswith("method,runs,")
    assert "on the frontier" in (out / "frontier-reward-seconds.svg").read_text()
    again = CliRunner().invoke(app, line)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_what_cannot_be_compared_is_refused(world, tmp_path):
    folders, *_ = world
    write_run(tmp_path / "few", 1, PLAIN, prompts=20)
    write_run(tmp_path / "other", 1, PLAIN, baseline="cold")
    for other, words in ((tmp_path / "few", "other prompts"), (tmp_path / "other", "one baseline"),
                         (tmp_path, "finished comparison")):
        with pytest.raises(DataError, match=words):
            load_methods([folders[0], other])
    with pytest.raises(ConfigError, match="each once"):
        load_methods([folders[0], folders[0]])
    found = load_methods(folders[:1])
    for options, words in (({"metrics": ["truth"]}, "metric 'truth'"),
                           ({"costs": ["money"]}, "cost 'money'"),
                           ({"controls": ["hot"]}, "control 'hot'"),
                           ({"at": {"money": [1.0]}}, "cost 'money'")):
        with pytest.raises(ConfigError, match=words):
            frontier(*found, **options)
    refused = CliRunner().invoke(app, ["evaluate", "frontier", str(folders[0]), "--at", "kl"])
    assert "kl=1" in refused.stderr
