"""Training and evaluation in one call each."""

import datasets
import pytest

from rewardsteer import RewardModel, evaluate, train
from rewardsteer.errors import ConfigError, DataError, OutputError

ROWS = [
    {"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1)}
    for a in range(5) for b in range(5)
]
FEW = {
    "optimiser": {"max_steps": 2, "precision": "fp32"}, "log": {"progress": False},
    "data": {"template": {"kind": "text"}},
}


@pytest.mark.parametrize("form", [list, datasets.Dataset.from_list])
def test_train_and_evaluate(folders, tmp_path, form):
    model = train("bt", folders / "base", form(ROWS), output_dir=tmp_path / "out", **FEW)
    assert isinstance(model, RewardModel)
    assert isinstance(model.score("1+1=", "2"), float)
    assert (tmp_path / "out" / "model" / "config.json").exists()
    table = evaluate(model, ROWS)
    right = sum(
        model.score(row["prompt"], row["chosen"]) > model.score(row["prompt"], row["rejected"])
        for row in ROWS
    )
    assert table["all"]["accuracy"] == pytest.approx(right / len(ROWS), abs=0.021)
    assert table["all"]["count"] == len(ROWS)


def test_settings_by_dotted_names(folders, tmp_path):
    train(
        "farma", folders / "base", ROWS, output_dir=tmp_path / "out", rounds=1, **FEW,
        **{"optimiser.learning_rate": 0.5},
    )
    assert "learning_rate: 0.5" in (tmp_path / "out" / "config.yaml").read_text()
    assert "rounds: 1" in (tmp_path / "out" / "config.yaml").read_text()


def test_errors(folders, tmp_path):
    with pytest.raises(ConfigError, match="Unknown recipe"):
        train("framma", folders / "base", ROWS, output_dir=tmp_path / "a")
    with pytest.raises(ConfigError, match="Unknown setting"):
        train("bt", folders / "base", ROWS, output_dir=tmp_path / "b", learning_rat=1)
    with pytest.raises(DataError, match="no rows"):
        train("bt", folders / "base", [], output_dir=tmp_path / "c")
    with pytest.raises(DataError, match="row 1"):
        train("bt", folders / "base", ["a"], output_dir=tmp_path / "d")
    with pytest.raises(DataError, match="no such file"):
        train("bt", folders / "base", "nowhere.jsonl", output_dir=tmp_path / "e")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train("bt", folders / "base", ROWS, output_dir=tmp_path / "full", **FEW)
    # What was refused has left no rows behind, nor replaced those of an earlier run.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    with pytest.raises(DataError, match="no such file"):
        evaluate(folders / "bt", "nowhere.jsonl")


def test_a_run_goes_on_with_the_same_rows_alone(folders, tmp_path):
    out = tmp_path / "deep" / "out"
    first = train("bt", folders / "base", ROWS, output_dir=out, **FEW)
    again = train("bt", folders / "base", ROWS, output_dir=out, resume=True, **FEW)
    assert again.score("1+1=", "2") == first.score("1+1=", "2")
    with pytest.raises(OutputError, match="other rows"):
        train("bt", folders / "base", ROWS[1:], output_dir=out, resume=True, **FEW)
