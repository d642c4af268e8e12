"""The table of what the recipes cost, at a tiny size."""

import random

import pytest

from benchmarks import recipes
from benchmarks.harness import CannotRun
from rewardsteer.data.sources import SOURCES
from rewardsteer.training.recipes import OWN_ROWS, own_source, read_recipe
from tests.fakes import save_tiny

SIZES = recipes.Sizes(batch=2, updates=2, prompt=3, response=4)


def test_every_recipe_has_rows_of_its_own_source(tmp_path):
    """The source of a recipe's folder is what Python's ``train`` reads a dataset with."""
    assert len(recipes.names()) > 10
    for name in recipes.names():
        source = own_source(read_recipe(name), str(tmp_path / "rows.jsonl"))
        assert source["name"] == OWN_ROWS[name.partition("/")[0]]
        row = recipes.ROWS[source["name"]](random.Random(0), SIZES)
        recipes.write_rows(tmp_path / "rows.jsonl", [row])
        assert len(list(SOURCES.get(source["name"])(
            "train", path=source["path"], **source.get("options", {})
        ))) == 1


def test_a_measurement_is_kept_and_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_MODEL", str(save_tiny(tmp_path / "model")))
    monkeypatch.setenv("RECIPES_PARTS", str(tmp_path / "parts"))
    monkeypatch.setattr(recipes, "device", lambda: "cpu")
    monkeypatch.setattr(recipes, "names", lambda: ["steps/process"])
    row, = recipes.run(SIZES)
    assert row["ours"] > 0
    assert row["phases"] == 1
    assert row["peak memory, MiB"] > 100
    monkeypatch.setattr(recipes, "measure", None)
    assert recipes.run(SIZES) == [row]


def test_without_the_model_it_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_MODEL", str(tmp_path / "none"))
    monkeypatch.setattr(recipes, "device", lambda: "cpu")
    with pytest.raises(CannotRun, match=r"runs/smollm2\.py"):
        recipes.run(SIZES)
