"""Every kind of source is prepared as it was when the results were written down."""

import json

import pytest

from tests.data import recorded

KNOWN = json.loads(recorded.PLACE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return recorded.own_cases(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", KNOWN["own"])
def test_own_rows(own, tmp_path, name):
    assert recorded.run(own[name], tmp_path / "out") == KNOWN["own"][name]


@pytest.mark.skipif(not recorded.SHARED.exists(), reason="the shared real rows are not here")
@pytest.mark.parametrize("name", KNOWN["shared"])
def test_shared_rows(tmp_path, name):
    settings = recorded.shared_cases(tmp_path)[name]
    assert recorded.run(settings, tmp_path / "out") == KNOWN["shared"][name]
