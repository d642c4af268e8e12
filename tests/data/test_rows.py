"""Rows of files of any size, shard by shard."""

import gzip
import json
import pickle
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardsteer.data.rows import JsonlRows, ListedRows, arrow_schema, open_rows, shards
from rewardsteer.errors import DataError

ROWS = [{"prompt": f"p{number} \u2028 é", "completion": "c" * number} for number in range(11)]


def write(folder, kind, rows=ROWS):
    path = folder / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
        return path
    # Empty lines and a byte order mark are no rows; the last line may lack its end.
    lines = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    content = lines.encode()
    path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
class TestFiles:
    @pytest.mark.parametrize("step", [1, 4, 11, 100])
    def test_shards_in_any_order(self, tmp_path, kind, step):
        rows = open_rows(write(tmp_path, kind), step)
        assert rows.count == 11
        assert shards(rows) == -(-11 // step)
        order = [*range(shards(rows)), *reversed(range(shards(rows))), 0]
        for shard in order:
            assert rows.read(shard) == ROWS[shard * step : (shard + 1) * step]

    def test_in_another_process(self, tmp_path, kind):
        rows = open_rows(write(tmp_path, kind), 4)
        rows.read(0)
        there = pickle.loads(pickle.dumps(rows))
        assert (there.count, there.digest) == (11, rows.digest)
        assert there.read(2) == rows.read(2) == ROWS[8:]

    def test_every_row_is_checked_with_its_place(self, tmp_path, kind):
        seen = []
        open_rows(write(tmp_path, kind), 4, lambda place, row: seen.append((place, row)))
        assert [row for _, row in seen] == ROWS
        assert seen[1][0].endswith("row 2" if kind == "parquet" else "line 3")

    def test_the_digest_is_of_the_content(self, tmp_path, kind):
        digests = set()
        for number, rows in enumerate((ROWS, ROWS[:-1], [*ROWS[1:], ROWS[0]], ROWS)):
            (tmp_path / str(number)).mkdir()
            digests.add(open_rows(write(tmp_path / str(number), kind, rows), 4).digest)
        assert len(digests) == 3

    def test_damaged(self, tmp_path, kind):
        path = write(tmp_path, kind)
        content = path.read_bytes()
        for damaged in (content[: len(content) * 2 // 3], b"\x00" * 40, b""):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match="x\\."):
                open_rows(path, 4)


def test_memory_does_not_grow_with_rows(tmp_path):
    path = tmp_path / "x.jsonl"
    peaks = []
    for count in (1_000, 4_000):
        with path.open("w") as stream:
            for number in range(count):
                stream.write(json.dumps({"prompt": "p" * 300, "n": number}) + "\n")
        tracemalloc.start()
        rows = open_rows(path, 500)
        assert sum(len(rows.read(shard)) for shard in range(shards(rows))) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_faults_name_file_and_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(DataError, match="line 3: expected a JSON object, got list"):
        JsonlRows(path)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="no rows"):
        JsonlRows(path)
    with pytest.raises(DataError, match="no such file"):
        open_rows(tmp_path / "y.jsonl")
    path.rename(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"unknown ending; expected .jsonl"):
        open_rows(tmp_path / "x.txt")


def test_parquet_values_that_json_cannot_hold(tmp_path):
    pq.write_table(pa.table({"a": [b"bytes"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"row 1: expected values that JSON can hold"):
        open_rows(tmp_path / "x.parquet")


def test_one_schema_for_all_rows():
    rows = ListedRows(
        [{"a": 1, "s": None}, {"a": None}, {"a": 1.5, "b": ["x"]}, {"s": "t", "gone": 1}], step=1
    )
    schema = arrow_schema(rows, ["gone"])
    assert dict(zip(schema.names, map(str, schema.types), strict=True)) == {
        "a": "double", "s": "string", "b": "list<item: string>",
    }
    with pytest.raises(DataError, match="'a' holds values"):
        arrow_schema(ListedRows([{"a": 1}, {"a": "x"}], step=1))
    with pytest.raises(DataError, match="'a' holds values"):
        arrow_schema(ListedRows([{"a": 1}, {"a": "x"}]))
