"""Rows of a comparison from names, from a file, and swept over weights."""

import pytest

from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.method_settings import read_methods, sweep_weights


def write(path, text):
    path.write_text(text)
    return str(path)


def test_names_with_their_reward_models():
    rows = read_methods("none, best_of_n=out/bt,goal_filter=out/goal")
    assert list(rows) == ["none", "best_of_n", "goal_filter"]
    assert [row.method for row in rows.values()] == list(rows)
    assert [row.folders for row in rows.values()] == [[], ["out/bt"], ["out/goal"]]
    assert [row.goal_place for row in rows.values()] == [None, None, "out/goal"]


def test_a_file_with_labels(tmp_path):
    rows = read_methods(write(tmp_path / "m.yaml", """
        cold: {method: none, temperature: 0.5}
        both: {method: args, reward_model: [a, b], reward_weights: [1, -0.5], weight: 2}
        even: {method: args, reward_model: [a, b]}
        goal: {method: beam, reward_model: a, goal: g}
        own: {method: beam, reward_model: a, step_value: goal}
        steps: {method: beam, reward_model: a}
    """))
    assert rows["cold"].temperature == 0.5
    assert (rows["both"].folders, rows["both"].weights) == (["a", "b"], [1.0, -0.5])
    assert rows["even"].weights == [1.0, 1.0]
    places = [rows[name].goal_place for name in ("goal", "own", "steps")]
    assert places == ["g", "a", None]


def test_weights_make_one_row_each_of_guided_methods_alone():
    rows, sweeps = sweep_weights(read_methods("none,best_of_n=b,farma=f,beam=g"), "0.5,1,2,1")
    assert list(rows) == [
        "none", "best_of_n", "farma w=0.5", "farma w=1", "farma w=2", "beam w=0.5",
        "beam w=1", "beam w=2",
    ]
    assert [row.weight for row in rows.values()][2:5] == [0.5, 1, 2]
    assert sweeps == {label: label.split(" ")[0] for label in rows if " " in label}
    assert rows["farma w=2"].folders == ["f"]


@pytest.mark.parametrize(("methods", "words"), [
    ("none,none", "twice"), ("nun", "none"), ("farma", "farma=FOLDER"), ("", "''"),
    ("missing.yaml", "missing.yaml"),
])
def test_bad_names(methods, words):
    with pytest.raises(ConfigError, match=words):
        read_methods(methods)


@pytest.mark.parametrize(("text", "words"), [
    ("", "names no method"), ("a: 3", "settings under 'a'"),
    ("a: {method: none, wieght: 1}", "Did you mean 'weight'"),
    ("a: {method: args, reward_model: [x, y], reward_weights: [1]}", "one weight for each"),
    ("a: {method: args, reward_model: x, reward_weights: [2]}", "use 'weight'"),
    ("a: {method: args}", "needs a reward model"),
    ("a: {method: best_of_n, reward_model: x, weight: 2}", "'weight' of 'a' is not used by"),
    ("a: {method: beam, reward_model: x, max_kl: 2}", "'max_kl' of 'a' is not used by"),
    ("a: {method: beam, reward_model: x, n: 4, beam: 2}",
     "'n' of 'a' is not used by the method 'beam'; leave it out, or use adaptive_best_of_n,"),
    ("a: {method: none, reward_model: x}", "'reward_model' of 'a' is not used by"),
    ("a: {method: args, reward_model: x, goal: g}", "'goal' of 'a' is not used by the method"),
    ("a: {method: none, n: 8}", "'n' of 'a' is not used by the method 'none'"),
])
def test_bad_files(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read_methods(write(tmp_path / "m.yaml", text))


@pytest.mark.parametrize(("methods", "weights", "words"), [
    ("farma=f", "1;2", "0.5,1,2"), ("farma=f", "inf", "expected at most"),
    ("none,best_of_n=b", "1", "None of"),
])
def test_bad_weights(methods, weights, words):
    with pytest.raises(ConfigError, match=words):
        sweep_weights(read_methods(methods), weights)
