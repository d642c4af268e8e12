"""Every objective trains as it did when its losses were written down, into the same folder."""

import json

import pytest

from tests.training import recorded

EVERY_DAY = {
    ("llama", name) for name in (
        "bradley_terry", "partial", "autoregressive", "farma summed", "goal infonce", "lora",
    )
} | {("gpt2", "bradley_terry")}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    root = tmp_path_factory.mktemp("worlds")
    return {kind: recorded.make_world(root, kind) for kind in recorded.KINDS}


@pytest.mark.parametrize(("kind", "name"), [
    # One run of each objective is quick enough for every day.
    pytest.param(kind, name, marks=[] if (kind, name) in EVERY_DAY else [pytest.mark.slow])
    for kind, names in recorded.KINDS.items() for name in names
])
def test_nothing_has_changed(worlds, tmp_path, kind, name):
    known = json.loads(recorded.PLACE.read_text(encoding="utf-8"))[kind][name]
    found = json.loads(json.dumps(recorded.run(worlds[kind], name, tmp_path / "run")))
    assert found["files"] == known["files"]
    figures, before = found["card"].pop("metrics"), known["card"].pop("metrics")
    assert found["card"] == known["card"]
    assert figures == [
        {field: pytest.approx(value) if isinstance(value, float) else value
         for field, value in one.items()}
        for one in before
    ]
    assert len(found["log"]) == len(known["log"])
    for line, before in zip(found["log"], known["log"], strict=True):
        assert line.keys() == before.keys()
        for field, value in before.items():
            # Figures of one phase can be very small; another processor rounds otherwise.
            close = pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, float) else value
            assert line[field] == close, field
    assert found["weights"].keys() == known["weights"].keys()
    for weight, (shape, dtype, mean) in known["weights"].items():
        # Attention does not depend on the biases of keys, a third of this vector: their gradient is
        # rounding alone, which Adam scales up to whole steps.
        close = pytest.approx(mean, rel=5e-2 if weight.endswith("c_attn.bias") else 1e-5)
        assert found["weights"][weight] == [shape, dtype, close]
