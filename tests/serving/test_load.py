"""The load of the benchmark, small: no error but deliberate refusals."""

import contextlib
import dataclasses

from benchmarks import serving
from benchmarks.backbones import Backbone
from tests.serving.running import running


@contextlib.contextmanager
def in_thread(sizes, places, queue):
    with running(serving.make_service(sizes, places, queue)) as (address, _):
        yield address, lambda: 0.0


def test_no_error_but_deliberate_refusals():
    sizes = dataclasses.replace(
        serving.SIZES, backbone=Backbone(1, 16, serving.SIZES.backbone.vocabulary), clients=24,
        requests=8, fewer=2, tokens=6, places=8, narrow=1,
    )
    wide, narrow = serving.run(sizes, in_thread)
    assert wide["answered"] == 24 * 8
    assert narrow["answered"] == 24 * 2
    assert wide["errors"] == narrow["errors"] == wide["429"] == 0
    assert narrow["429"] > 0
    for row in (wide, narrow):
        assert 0 < row["p50, ms"] <= row["p99, ms"]
        assert row["ratio"] == row["ours"] / row["other"]
