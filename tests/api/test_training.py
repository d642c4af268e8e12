"""Training and evaluation in one call each."""

import json

import datasets
import numpy
import pandas
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


OWN = {
    "regression": [
        {"prompt": f"{a}+{b}=", "completion": str(c), "score": float(a + b == c)}
        for a in range(4) for b in range(4) for c in (a + b, a + b + 1)
    ],
    "listwise": [
        {"prompt": f"{a}+{b}=", "responses": [str(a + b), str(a + b + 1), "x"], "ranks": [1, 2, 2]}
        for a in range(4) for b in range(4)
    ],
    "labels": [
        {"prompt": f"{a}+{b}=", "completion": str(c), "label": a + b == c}
        for a in range(4) for b in range(4) for c in (a + b, a + b + 1)
    ],
    "process": [
        {"prompt": f"{a}+{b}=", "completions": ["So", str(a + b)], "labels": [True, a > b]}
        for a in range(4) for b in range(4)
    ],
}
FIGURES = {
    "regression": {"pearson", "spearman", "pair_accuracy"},
    "listwise": {"pair_accuracy", "best_first"}, "labels": {"auroc", "label_accuracy"},
    "process": {"accuracy"},
}


@pytest.mark.parametrize("form", [list, datasets.Dataset.from_list])
@pytest.mark.parametrize("name", list(OWN))
def test_rows_of_ones_own_that_are_no_pairs(folders, tmp_path, name, form):
    settings = FEW | {"data": FEW["data"] | {"test_fraction": 0.5}, "select": "best"}
    model = train(name, folders / "base", form(OWN[name]), output_dir=tmp_path / "out", **settings)
    assert isinstance(model.score("1+1=", "2"), float)
    (phase,) = json.loads((tmp_path / "out" / "result.json").read_text())["phases"]
    assert {f"eval_{figure}" for figure in FIGURES[name]} <= phase.keys()


def test_held_out_rows_of_one_label_choose_no_checkpoint(folders, tmp_path):
    rows = [row | {"label": True} for row in OWN["labels"]]
    log = {"progress": False, "eval_steps": 1, "save_steps": 1}
    settings = FEW | {"select": "best", "log": log}
    train("labels", folders / "base", rows, output_dir=tmp_path / "out", **settings)
    (phase,) = json.loads((tmp_path / "out" / "result.json").read_text())["phases"]
    assert phase["eval_auroc"] is None
    assert phase["eval_label_accuracy"] is not None


def test_a_recipe_names_what_its_rows_lack(folders, tmp_path):
    rows = [row | {"taste": row["score"]} for row in OWN["regression"]]
    data = FEW["data"] | {"sources": [{"name": "ratings", "options": {"attributes": ["taste"]}}]}
    with pytest.raises(DataError, match=r"needs the number\(s\) rating.*has taste"):
        train("regression", folders / "base", None, output_dir=tmp_path / "out", **FEW | {
            "data": data | {"sources": [data["sources"][0] | {"path": _file(tmp_path, rows)}]},
        })
    with pytest.raises(DataError, match="expected ratings as rating, score"):
        train("regression", folders / "base", ROWS, output_dir=tmp_path / "pairs", **FEW)
    with pytest.raises(DataError, match="chosen, rejected"):
        train("bt", folders / "base", rows, output_dir=tmp_path / "bt", **FEW)


def _file(folder, rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def test_settings_by_dotted_names(folders, tmp_path):
    train(
        "farma", folders / "base", ROWS, output_dir=tmp_path / "out", rounds=1, **FEW,
        **{"optimiser.learning_rate": 0.5},
    )
    assert "learning_rate: 0.5" in (tmp_path / "out" / "config.yaml").read_text()
    assert "rounds: 1" in (tmp_path / "out" / "config.yaml").read_text()


def test_errors(folders, tmp_path):
    with pytest.raises(ConfigError, match="recipe is the name of a recipe or a YAML file, got a"):
        train({"rounds": 3}, output_dir=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        train(tmp_path / "absent.yaml", output_dir=tmp_path / "x")
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
    with pytest.raises(ConfigError, match=r"classes of transformers\.TrainerCallback, got 3"):
        train("bt", folders / "base", str(tmp_path), output_dir=tmp_path / "f", callbacks=[3])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train("bt", folders / "base", ROWS, output_dir=tmp_path / "full", **FEW)
    # What was refused has left no rows behind, nor replaced those of an earlier run.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    with pytest.raises(DataError, match="no such file"):
        evaluate(folders / "bt", "nowhere.jsonl")


@pytest.mark.parametrize(("rows", "message"), [
    (datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), r"dataset\['train'\]"),
    (pandas.DataFrame(ROWS), r"got a DataFrame; .*to_dict\('records'\)"),
    ([*ROWS, {"prompt": "p", "chosen": {1}}], "Row 26 .* cannot hold .a set.; convert it"),
    ([{"prompt": "\ud800", "chosen": "a", "rejected": "b"}], "Row 1 .* surrogates not allowed"),
])
def test_rows_that_are_no_rows_are_told_with_what_to_give(folders, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        train("bt", folders / "base", rows, output_dir=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(folders, tmp_path):
    rows = [{"prompt": f"{i}", "response": "a", "rating": numpy.float32(i)} for i in range(9)]
    train("regression", folders / "base", rows, output_dir=tmp_path / "out", **FEW)
    assert '"rating": 8.0' in (tmp_path / "out.rows.jsonl").read_text()


def test_a_run_goes_on_with_the_same_rows_alone(folders, tmp_path):
    out = tmp_path / "deep" / "out"
    first = train("bt", folders / "base", ROWS, output_dir=out, **FEW)
    again = train("bt", folders / "base", ROWS, output_dir=out, resume=True, **FEW)
    assert again.score("1+1=", "2") == first.score("1+1=", "2")
    with pytest.raises(OutputError, match="other rows"):
        train("bt", folders / "base", ROWS[1:], output_dir=out, resume=True, **FEW)
