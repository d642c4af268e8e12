"""The tables that need vLLM at a tiny size, or why they cannot be made."""

import importlib.util
import json

import pytest

from benchmarks import engines, vllm
from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun
from tests.benchmarks.test_tables import check

SIZES = vllm.Sizes(
    backbone=Backbone(1, 64, vllm.SIZES.backbone.vocabulary, heads=2), requests=(1, 3), prompt=6,
    new=4, runs=1,
)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("table", [vllm, engines])
def test_absence_is_told(table):
    with pytest.raises(CannotRun, match="vLLM is not installed"):
        table.run()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_table(monkeypatch, capsys):
    def alone(name, engine):
        capsys.readouterr()
        vllm.measure(engine, SIZES)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(vllm, "alone", alone)
    rows = vllm.run(SIZES)
    check(rows, 4)
    hosts = [rows[0][name] for name in ("host, ms per step", "of the policy alone")]
    assert 0 < min(hosts) < max(hosts) < 1000


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_methods_by_engines(monkeypatch, capsys):
    sizes = vllm.Sizes(SIZES.backbone, requests=(2,), prompt=6, new=8, runs=1)

    def alone(name, engine):
        capsys.readouterr()
        engines.measure(engine, sizes)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(engines, "alone", alone)
    rows = engines.run(sizes, ["transformers", "vllm"])
    check(rows, 14)
    cases = {row["case"] for row in rows}
    assert "args, 2 requests, transformers" in cases
    assert "args, 2 requests, vllm" not in cases
