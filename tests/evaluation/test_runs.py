"""Comparisons over several runs, from records written by hand, and by two sampling seeds."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.evaluation.runs import compare_seeds, over_runs
from rewardsteer.evaluation.statistics import holm, two_level
from rewardsteer.records import Cost, EvalRecord, Generation
from tests.evaluation.recorded import make_world

LABELS = ("none", "args", "best")


def write_run(folder, seed, prompts=20, labels=LABELS):
    """One finished comparison; returns accuracies and rewards by label."""
    folder.mkdir(parents=True)
    rng, values = np.random.default_rng(seed), {}
    for label in labels:
        own = {"reward": rng.normal(size=prompts) + (label == "best") + 0.1 * seed,
               "accuracy": (rng.random(prompts) < 0.6).astype(float)}
        lines = []
        for number in range(prompts):
            answer = Generation(
                id=f"{number:02}", prompt=f"p{number}", completion="x", token_ids=[1],
                finish_reason="stop", method=label, cost=Cost(new_tokens=1),
            )
            record = EvalRecord(
                generation=answer, metrics={name: one[number] for name, one in own.items()}
            )
            lines.append(record.model_dump_json() + "\n")
        (folder / f"{label}.jsonl").write_text("".join(lines))
        values[label] = own
    methods = {
        label: {"count": prompts, "reward": 0.0, "reward_low": -1.0, "length": 2.0 + seed}
        for label in labels
    }
    (folder / "summary.json").write_text(json.dumps({"methods": methods, "baseline": "none"}))
    return values


def test_figures_over_runs_are_two_level(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed) for seed in range(3)]
    folders = [tmp_path / str(seed) for seed in range(3)]
    found = over_runs(folders, tmp_path / "runs.json")
    table = {
        (label, name): np.array([run[label][name] for run in runs])
        for label in LABELS for name in ("reward", "accuracy")
    }
    best = found["best"]
    reward = two_level(table["best", "reward"])
    assert (best["reward"], best["reward_low"]) == pytest.approx((reward.value, reward.low))
    assert best["reward_spread"] == pytest.approx(
        np.std([run["best"]["reward"].mean() for run in runs], ddof=1)
    )
    share = two_level(table["best", "accuracy"], bounded=True)
    assert best["accuracy_high"] == pytest.approx(share.high)
    gains = [two_level(table[label, "reward"] - table["none", "reward"]) for label in LABELS[1:]]
    assert best["reward_gain"] == pytest.approx(gains[1].value)
    adjusted = holm([gain.p_value for gain in gains])
    assert [found[label]["reward_gain_p"] for label in LABELS[1:]] == pytest.approx(adjusted)
    assert best["length"] == 3.0
    written = json.loads((tmp_path / "runs.json").read_text())
    assert written["intervals"] == "95 % intervals over 20 prompts and 3 runs"
    assert written["methods"] == found
    for metric in ("reward", "accuracy"):
        for label in LABELS:
            assert written["by_run"][metric][label] == pytest.approx(
                [run[label][metric].mean() for run in runs]
            )


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    write_run(tmp_path / "a", 0)
    write_run(tmp_path / "b", 1, prompts=19)
    write_run(tmp_path / "c", 1, labels=("none", "args"))
    for other, words in (("b", "prompts"), ("c", "methods"), ("d", "finished comparison")):
        with pytest.raises(DataError, match=words):
            over_runs([tmp_path / "a", tmp_path / other], tmp_path / "x.json")
    with pytest.raises(ConfigError, match="two or more runs"):
        over_runs([tmp_path / "a"] * 2, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_command(tmp_path):
    for seed in range(2):
        write_run(tmp_path / str(seed), seed)
    given = ["evaluate", "runs", str(tmp_path / "0"), str(tmp_path / "1"), "--out",
             str(tmp_path / "runs.json")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "2 runs, 95 % intervals over 20 prompts" in result.output
    again = CliRunner().invoke(app, given)
    assert again.exit_code != 0
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize("seeds", ["0", "0,0", "0,x", "-1,2"])
def test_seeds_at_fault_are_refused_before_work(tmp_path, seeds):
    (tmp_path / "p.jsonl").write_text('{"prompt": "1+1="}\n')
    result = CliRunner().invoke(app, [
        "evaluate", "generation", "--model", "m", "--prompts", str(tmp_path / "p.jsonl"),
        "--methods", "none", "--judge", "j", f"--seeds={seeds}",
    ])
    assert result.exit_code != 0
    assert "seeds" in result.stderr


def test_each_seed_has_its_own_samples(tmp_path):
    world = make_world(tmp_path / "world")
    config = DecodingConfig(max_new_tokens=4, batch_size=12, seed=3)
    requests = [Request(id=str(number), prompt=f"{number}+1=") for number in range(12)]
    found = compare_seeds(
        [0, 1], [Entry("none", config)],
        ComparedPolicy.loaded(world["policy"], world["tokenizer"]), requests,
        Judge(world["scalar"]), tmp_path / "out",
    )
    own = [read_records(tmp_path / "out" / f"seed-{seed}" / "none.jsonl") for seed in (0, 1)]
    texts = [[run[request.id].generation.completion for request in requests] for run in own]
    assert texts[0] != texts[1]
    means = [np.mean([one.metrics["reward"] for one in run.values()]) for run in own]
    assert found["none"]["reward"] == pytest.approx(np.mean(means))
    assert found["none"]["reward_spread"] == pytest.approx(np.std(means, ddof=1))
