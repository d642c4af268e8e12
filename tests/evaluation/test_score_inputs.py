"""`rewardsteer score` on files of every kind."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardsteer.progress import _lines
from tests.evaluation.test_scoring import make, read, refused, run, score, write

ROWS = [{"prompt": f"Sum {n // 3}", "completion": "x" * n, "tag": n} for n in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    make(root, "plain")
    write(root / "x.jsonl", ROWS)
    (root / "x.jsonl.gz").write_bytes(gzip.compress((root / "x.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(ROWS), root / "x.parquet")
    assert score(root, root / "x.jsonl", root / "y.jsonl", "--shard-rows", 5).exit_code == 0
    return root


@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_every_file_gives_the_same_rows(root, tmp_path, kind, ending):
    output = tmp_path / f"y.{ending}"
    result = score(root, root / f"x.{kind}", output, "--shard-rows", 5)
    assert result.exit_code == 0, result.output
    found = read(output) if ending == "jsonl" else pq.read_table(output).to_pylist()
    for row in found:
        row.pop("skipped", None)
    assert found == read(root / "y.jsonl")


def test_the_record_says_what_made_it(root):
    made = json.loads((root / "y.jsonl.run.json").read_text())
    assert made["rows"] == 12
    assert made["shard_rows"] == 5
    assert made["goal"] is None
    assert len(made["fingerprint"]) == len(made["input"]) == 16


def test_solutions_leave_no_file_behind(root, tmp_path):
    """Rows that hold one solution keep all their fields; questions of several do not fit there."""
    several = [{"text": "a", "model": "m"}, {"text": "b", "model": "n"}]
    rows = [
        {"question": "1?", "generation": "one", "mine": [1]},
        {"question": "2?", "completions": several},
    ]
    result = score(root, write(tmp_path / "in.jsonl", rows), tmp_path / "y.jsonl", "--no-tokens")
    assert result.exit_code == 0, result.output
    found = read(tmp_path / "y.jsonl")
    assert [row["completion"] for row in found] == ["one", "a", "b"]
    assert found[0]["mine"] == [1]
    assert found[0]["question"] == "1?"
    assert "completions" not in found[1]
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.jsonl", "y.jsonl", "y.jsonl.run.json"
    }


def test_solutions_that_are_refused_leave_no_file_behind(root, tmp_path):
    rows = [{"question": "1?", "generation": "one"}] * 2
    path = write(tmp_path / "in.jsonl", rows)
    refused(score(root, path, tmp_path / "y.jsonl"), "appears already", "line 1")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(("row", "words"), [
    ({"prompt": "a"}, ("line 13", "'prompt' and 'completion'")),
    ({"prompt": 3, "completion": "a"}, ("line 13", "text or messages as prompt", "a number (3)")),
    ({"prompt": "a", "completion": None}, ("line 13", "messages as completion", "got null")),
])
def test_a_fault_far_down_is_found_before_any_work(root, tmp_path, row, words):
    path = write(tmp_path / "x.jsonl", [*ROWS, row])
    refused(score(root, path, tmp_path / "y.jsonl"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_engines_are_named(root, tmp_path):
    result = score(root, root / "x.jsonl", tmp_path / "y.jsonl", "--engine", "spark")
    refused(result, "transformers or vllm or ray")


def test_a_log_gets_a_line_now_and_then():
    times, lines = iter([0.0, 1.0, 20.0, 41.0, 45.0, 75.0]), []
    announce = _lines("scoring", "rows", lines.append, lambda: next(times))
    for done in (1000, 1100, 1400, 1500, 2480):
        announce(done, 5000)
    assert lines == [
        "scoring: 1,400 of 5,000 rows, 10 rows/s, 0:06:00 left",
        "scoring: 2,480 of 5,000 rows, 20 rows/s, 0:02:06 left",
    ]


def test_a_log_line_without_a_known_total():
    times, lines = iter([0.0, 0.0, 40.0]), []
    announce = _lines("reading", "rows", lines.append, lambda: next(times))
    for done in (0, 1000):
        announce(done, None)
    assert lines == ["reading: 1,000 rows, 25 rows/s"]


def test_help_names_the_options():
    result = run("score", "--help")
    for option in ("--ray-address", "--ray-actors", "--shard-rows", "--batch-tokens", "--resume"):
        assert option in result.output
