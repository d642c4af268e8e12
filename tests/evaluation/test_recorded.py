"""Every evaluation gives the figures that it gave when they were written down."""

import json

import pytest

from tests.evaluation import recorded

# Two of a prompt's samples have the same reward but for rounding: which of them is the best, and
# what depends on its text, differs from processor to processor.
BY_ROUNDING = tuple(
    f"kl/summary/methods/best/{name}" for name in ("surprise", "distinct", "rouge")
)
KNOWN = json.loads(recorded.PLACE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return recorded.results(tmp_path_factory.mktemp("world"))


def compare(found, known, place):
    if isinstance(known, dict):
        assert found.keys() == known.keys(), place
        for key, value in known.items():
            compare(found[key], value, f"{place}/{key}")
    elif isinstance(known, list):
        assert len(found) == len(known), place
        for index, value in enumerate(known):
            compare(found[index], value, f"{place}/{index}")
    elif place.startswith(BY_ROUNDING):
        assert isinstance(found, float), place
    elif isinstance(known, float):
        assert found == pytest.approx(known, rel=1e-3, abs=1e-5), place
    else:
        assert found == known, place


@pytest.mark.parametrize("name", KNOWN)
def test_nothing_has_changed(found, name):
    compare(found[name], KNOWN[name], name)
