"""Two checkouts compared, here one with itself."""

from pathlib import Path

import pytest

from benchmarks import checkouts

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_checkout_against_itself():
    rows = checkouts.compare(
        ROOT, (1, 32, 64), ["none", "best_of_n"], prompt=6, new=4, batch=2, runs=2
    )
    assert [row["case"] for row in rows] == ["none", "best_of_n"]
    assert all(row["ours"] > 0 and row["other"] > 0 for row in rows)


@pytest.mark.slow
def test_a_method_that_a_checkout_lacks_is_told(capfd):
    with pytest.raises(RuntimeError, match="ended at 'sideways 6 4 2'"):
        checkouts.compare(ROOT, (1, 32, 64), ["sideways"], prompt=6, new=4, batch=2, runs=1)
    assert "KeyError: 'sideways'" in capfd.readouterr().err
