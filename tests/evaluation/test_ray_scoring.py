"""`rewardsteer score --engine ray` on a cluster of this machine: the rows of the other engine."""

import json

import pytest

pytest.importorskip("ray", reason="Ray is not installed; install the extra 'ray'")

from tests.evaluation.test_scoring import make, read, run, write

pytestmark = pytest.mark.slow

ROWS = [{"prompt": f"Sum {n // 4}: ", "completion": "x" * (n % 9) + "1"} for n in range(60)]


def score(root, output, *more):
    return run(
        "score", "--reward-model", root / "plain", "--input", root / "x.jsonl", "--output", output,
        "--shard-rows", 16, *more,
    )


def test_the_same_rows_also_resumed(tmp_path, monkeypatch):
    """One start of Ray for all: a run that goes on from a shard, and one that has to stop."""
    import ray

    make(tmp_path, "plain")
    write(tmp_path / "x.jsonl", ROWS)
    assert score(tmp_path, tmp_path / "here.jsonl").exit_code == 0
    expected, output = read(tmp_path / "here.jsonl"), tmp_path / "ray.jsonl"
    partial = tmp_path / "ray.jsonl.partial"
    partial.mkdir()
    (partial / "run.json").write_text((tmp_path / "here.jsonl.run.json").read_text())
    kept = [row | {"reward": 7.0} for row in ROWS[16:32]]
    write(partial / "00000001.jsonl", kept)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)  # actors start elsewhere: paths must not depend on it
    try:
        result = score(
            tmp_path, "ray.jsonl", "--engine", "ray", "--ray-actors", 1, "--resume"
        )
        assert result.exit_code == 0, result.output
        found = read(output)
        assert found[16:32] == kept
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            if not 16 <= number < 32:
                assert one.pop("reward") == pytest.approx(other.pop("reward"), abs=1e-5)
                assert one == other
        assert json.loads((tmp_path / "ray.jsonl.run.json").read_text())["rows"] == 60
        assert not partial.exists()
    finally:
        ray.shutdown()
