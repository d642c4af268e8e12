"""Listing recipes and showing one whole."""

import yaml
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.recipes import list_recipes


def run(*words):
    return CliRunner().invoke(app, ["recipes", *words])


def test_every_recipe_is_listed_with_a_title():
    lines = run().output.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes("any")
    assert all(line.endswith(".") and len(line.split()) > 3 for line in lines)


def test_a_recipe_is_shown_with_every_setting():
    shown = run("hh/farma", "rounds=2").output
    text, _, settings = shown.partition("# Every setting, as")
    assert "rows: 6000         # published" in text
    assert "# 3 phases in turn: bradley_terry, max_constraint, bradley_terry" in text
    values = yaml.safe_load(settings.split("\n", 1)[1])
    assert TrainConfig.model_validate(values).rounds == 2
    assert values.keys() == TrainConfig.model_fields.keys()


def test_each_line_of_a_recipe_says_whose_value_it_is():
    for name in list_recipes("any"):
        text = run(name).output.partition("# Every setting, as")[0]
        assert "published" in text or "not from a publication" in text, name


def test_a_typing_mistake_is_a_sentence():
    found = run("hh/frama")
    assert found.exit_code != 0
    assert "Did you mean 'hh/farma'" in found.output + str(found.exception)
