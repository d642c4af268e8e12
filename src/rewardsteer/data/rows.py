"""Rows of a file of any size, read shard by shard, without loading the whole file.

A scan reads the file once: it checks and counts the rows, computes a digest and records where each
shard begins. After that any process with access to the file can read any shard by itself.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from rewardsteer.data.sources.files import parse_object
from rewardsteer.data.sources.opening import READ_FAILURES, Row, open_bytes
from rewardsteer.data.sources.tables import parquet_rows
from rewardsteer.errors import DataError

SHARD_ROWS = 2048
Check = Callable[[str, Row], None]


class Rows(Protocol):
    """Rows in order, in shards of ``step`` rows (the last one may be shorter).

    Attributes:
        step: rows per shard.
        digest: hash that identifies the content.
    """

    count: int
    step: int
    digest: str

    def read(self, shard: int) -> list[Row]:
        """The rows of one shard."""


def shards(rows: Rows) -> int:
    """The number of shards."""
    return -(-rows.count // rows.step)


class ListedRows:
    """Rows that are in memory."""

    def __init__(self, rows: Sequence[Row], step: int = SHARD_ROWS) -> None:
        self._rows, self.count, self.step = rows, len(rows), step
        content = "".join(json.dumps(row, sort_keys=True) for row in rows)
        self.digest = hashlib.sha256(content.encode()).hexdigest()[:16]

    def read(self, shard: int) -> list[Row]:
        return list(self._rows[shard * self.step : (shard + 1) * self.step])


class JsonlRows:
    """Rows of a ``.jsonl`` or ``.jsonl.gz`` file. Shards read in order take one pass, also of a
    compressed file.

    Raises:
        DataError: the file is unreadable, malformed or empty; names the line.
    """

    def __init__(self, path: Path, step: int = SHARD_ROWS, check: Check | None = None) -> None:
        self.path, self.step, self.count = path, step, 0
        self._begins: list[tuple[int, int]] = []
        self._stream: IO[bytes] | None = None
        content, at = hashlib.sha256(), 0
        for number, line in self._lines(0):
            if line.strip():
                if self.count % step == 0:
                    self._begins.append((at, number))
                place = f"{path}, line {number}"
                row = parse_object(line, place)
                if check is not None:
                    check(place, row)
                self.count += 1
            content.update(line)
            at += len(line)
        if not self.count:
            raise DataError(f"The file {path} holds no rows.")
        self.digest = content.hexdigest()[:16]

    def read(self, shard: int) -> list[Row]:
        at, first = self._begins[shard]
        lines = ((number, line) for number, line in self._lines(at, first) if line.strip())
        return [
            parse_object(line, f"{self.path}, line {number}")
            for number, line in itertools.islice(lines, self.step)
        ]

    def _lines(self, at: int, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """Numbered lines from an offset on; the file stays open for the next shard."""
        try:
            if self._stream is None:
                self._stream = open_bytes(self.path)
            self._stream.seek(at)
            yield from enumerate(self._stream, start=first)
        except READ_FAILURES as error:
            raise DataError(f"The file {self.path} cannot be read: {error}.") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_stream": None}


class ParquetRows:
    """Rows of a Parquet file. Shards read in order take one pass, a few rows at a time.

    Raises:
        DataError: the file is unreadable or empty, or JSON cannot hold a value; names the row.
    """

    def __init__(self, path: Path, step: int = SHARD_ROWS, check: Check | None = None) -> None:
        self.path, self.step, self.count = path, step, 0
        self._left: Iterator[Row] | None = None
        self._at = 0
        content = hashlib.sha256()
        for number, row in enumerate(parquet_rows(self.path), start=1):
            place = f"{path}, row {number}"
            try:
                content.update(json.dumps(row).encode())
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{place}: expected values that JSON can hold (text, numbers, lists), got "
                    f"another kind ({error}); drop or convert that column."
                ) from error
            if check is not None:
                check(place, row)
            self.count += 1
        if not self.count:
            raise DataError(f"The file {path} holds no rows.")
        self.digest = content.hexdigest()[:16]

    def read(self, shard: int) -> list[Row]:
        begin = shard * self.step
        if self._left is None or begin < self._at:
            self._left, self._at = parquet_rows(self.path), 0
        found = list(itertools.islice(self._left, begin - self._at, begin - self._at + self.step))
        self._at = begin + len(found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_left": None, "_at": 0}


def open_rows(path: Path, step: int = SHARD_ROWS, check: Check | None = None) -> Rows:
    """Scan a file.

    Args:
        path: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        step: rows per shard.
        check: called with the place (file, line) and content of every row; raises if it is invalid.

    Raises:
        DataError: the file is missing, unreadable, malformed, empty or of an unknown ending.
    """
    if not path.is_file():
        raise DataError(f"Expected rows at {path}, there is no such file.")
    if path.suffix == ".parquet":
        return ParquetRows(path, step, check)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return JsonlRows(path, step, check)
    raise DataError(
        f"The file {path} has an unknown ending; expected .jsonl, .jsonl.gz or .parquet."
    )


def arrow_schema(rows: Rows, leave_out: Sequence[str] = ()) -> Any:
    """The Arrow schema that all rows fit.

    Args:
        rows: read once.
        leave_out: fields that are not part of the schema.

    Raises:
        DataError: a field holds values of types that do not fit into one column.
    """
    import pyarrow as pa

    schema = pa.schema([])
    for shard in range(shards(rows)):
        found = rows.read(shard)
        names = dict.fromkeys(name for row in found for name in row if name not in leave_out)
        for name in names:
            try:
                kind = pa.array([row.get(name) for row in found]).type
                schema = pa.unify_schemas(
                    [schema, pa.schema([(name, kind)])], promote_options="permissive"
                )
            except (pa.ArrowException, OverflowError) as error:
                raise DataError(
                    f"The field {name!r} holds values that do not fit into one Parquet column "
                    f"({error}); write JSONL, or make them alike."
                ) from error
    return schema
