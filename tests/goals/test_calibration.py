"""Similarities as probabilities by position: fit, file, command."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rewardsteer.cli.calibrate import calibrate_command
from rewardsteer.cli.group import Group
from rewardsteer.errors import DataError
from rewardsteer.goals.calibration import (
    PositionCalibration,
    Range,
    fit_calibration,
    load_calibration,
    save_calibration,
)


def solutions(count=400, seed=0):
    """Similarity says nothing in the first three tokens, everything from the fourth on."""
    draws = np.random.default_rng(seed)
    correct = draws.random(count) < 0.6
    values = [
        [*draws.normal(size=3), *(draws.normal(size=draws.integers(1, 5)) * 0.1 + (2 * right - 1))]
        for right in correct
    ]
    return values, correct.tolist()


def test_the_map_depends_on_the_position():
    values, correct = solutions()
    told = fit_calibration(values, correct, ranges=6)
    assert told.ranges[0].start == 0
    assert told.solutions == 400
    for position in (0, 1, 2):
        assert 0.4 < told.probability(position, 0.0) < 0.8
    for position in (3, 4, 5, 99):
        assert told.probability(position, 0.9) > 0.95
        assert told.probability(position, -0.9) < 0.05
        assert told.probability(position, 1e9) <= 1


def test_each_map_is_isotonic_regression_of_its_tokens():
    values, correct = solutions(60)
    told = fit_calibration(values, correct, ranges=1)
    flat = np.concatenate(values)
    labels = np.repeat(np.array(correct, float), [len(one) for one in values])
    order = np.argsort(flat)
    # Pool adjacent violators, the plain way.
    pools = [[v, 1] for v in labels[order]]
    i = 0
    while i + 1 < len(pools):
        if pools[i][0] > pools[i + 1][0] + 1e-12:
            (a, n), (b, m) = pools[i], pools.pop(i + 1)
            pools[i] = [(a * n + b * m) / (n + m), n + m]
            i = max(i - 1, 0)
        else:
            i += 1
    fitted = np.concatenate([[v] * n for v, n in pools])
    found = [told.probability(0, value) for value in flat[order]]
    np.testing.assert_allclose(found, fitted, atol=1e-6)


def test_a_file_round_trips(tmp_path):
    told = fit_calibration(*solutions(), model_fingerprint="abc")
    save_calibration(told, tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json") == told


@pytest.mark.parametrize(("text", "message"), [
    ("{}", "is no calibration"),
    ('{"ranges": [{"start": 2, "similarities": [0], "probabilities": [0.5]}]}', "must begin at 0"),
    ('{"ranges": [{"start": 0, "similarities": [0, 1], "probabilities": [0.5]}]}', "in number"),
])
def test_damaged_files(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_calibration(tmp_path / "c.json")


def test_one_label_alone_cannot_be_calibrated():
    with pytest.raises(DataError, match="right and wrong solutions, got 2 with 2 right"):
        fit_calibration([[0.1], [0.2]], [True, True])


def test_ranges_are_found_by_position():
    told = PositionCalibration(ranges=[
        Range(start=0, similarities=[0.0], probabilities=[0.1]),
        Range(start=3, similarities=[0.0, 1.0], probabilities=[0.5, 0.7]),
    ])
    assert [told.probability(i, 0.5) for i in (0, 2, 3, 9)] == pytest.approx([0.1, 0.1, 0.6, 0.6])


def invoke(*arguments):
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("calibrate")(calibrate_command)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_the_command(tmp_path):
    values, correct = solutions(50)
    rows = [
        {"token_similarities": one, "is_correct": right}
        for one, right in zip(values, correct, strict=True)
    ]
    rows += [{"token_similarities": [1.0]}, {"is_correct": True}]
    scored, place = tmp_path / "s.jsonl", tmp_path / "c.json"
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = invoke("--scores", scored, "--output", place, "--ranges", 3)
    assert result.exit_code == 0, result.output
    assert load_calibration(place) == fit_calibration(values, correct, ranges=3)
    scored.write_text('{"is_correct": true}\n')
    result = invoke("--scores", scored, "--output", place)
    assert result.exit_code == 2
    assert "no row has both is_correct and token_similarities" in result.output
