"""The table of guided vLLM at a tiny size, or why it cannot be made."""

import importlib.util
import json

import pytest

from benchmarks import vllm
from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun
from tests.benchmarks.test_tables import check

SIZES = vllm.Sizes(
    backbone=Backbone(1, 64, vllm.SIZES.backbone.vocabulary, heads=2), requests=(1, 3), prompt=6,
    new=4, runs=1,
)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_absence_is_told():
    with pytest.raises(CannotRun, match="vLLM is not installed"):
        vllm.run()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_table(monkeypatch, capsys):
    def alone(name, engine):
        capsys.readouterr()
        vllm.measure(engine, SIZES)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(vllm, "alone", alone)
    rows = vllm.run(SIZES)
    check(rows, 4)
    hosts = [rows[0][name] for name in ("host, ms a step", "of the policy alone")]
    assert 0 < min(hosts) < max(hosts) < 1000
