"""Every method gives what it gave when its results were written down."""

import json

import pytest

from tests.decoding import recorded


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: recorded.make_parts(root, kind) for kind in recorded.KINDS}


@pytest.mark.parametrize("kind", recorded.KINDS)
@pytest.mark.parametrize("name", recorded.RUNS)
def test_nothing_has_changed(parts, kind, name):
    known = json.loads(recorded.PLACE.read_text())[kind][name]
    found = recorded.run(parts[kind], name)
    assert len(found) == len(known) == len(recorded.PROMPTS)
    for one, before in zip(found, known, strict=True):
        assert one["token_ids"] == before["token_ids"]
        assert one["finish_reason"] == before["finish_reason"]
        assert one["reward"] == pytest.approx(before["reward"], abs=2e-5)
        assert known_or_less(one["cost"], before["cost"], name.startswith("goal"))


def known_or_less(cost, before, goes_on):
    """The same cost; methods that go on with samples need not read their prefixes anew."""
    less = {"lm_tokens", "rm_tokens"} if goes_on else set()
    return cost.keys() == before.keys() and all(
        cost[part] <= before[part] if part in less else cost[part] == before[part] for part in cost
    )
