"""Rows of tables: CSV, Parquet and Arrow files."""

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from rewardsteer.data.sources.opening import READ_FAILURES, Guard, Row, open_bytes
from rewardsteer.errors import DataError


def read_csv(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
    """Places and rows of a CSV file; see `rewardsteer.data.sources.files.read_file`."""
    csv.field_size_limit(1 << 30)
    # Bytes that are not UTF-8 pass through here and are reported with their row.
    try:
        with io.TextIOWrapper(
            cast(Any, open_bytes(file)), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as stream:
            yield from _csv_rows(file, csv.DictReader(stream), guard)
    except READ_FAILURES as error:
        raise DataError(f"The file {file} cannot be read: {error}.") from error


def _csv_rows(file: Path, reader: Any, guard: Guard) -> Iterator[tuple[str, Row]]:
    # A faulty header is an error of the file, so it is read outside the guard.
    names = _heading(file, reader)
    ended = False
    while not ended:
        found = None
        with guard():
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{file}, line {reader.line_num}: not valid CSV ({error})."
                ) from error
            ended = cells is None
            if cells is not None:
                place = f"{file}, line {reader.line_num}"
                found = place, _csv_row(cells, names, place)
        if found is not None:
            yield found


def _heading(file: Path, reader: Any) -> list[str]:
    try:
        names = list(reader.fieldnames or [])
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not valid CSV ({error}).") from error
    for name in names:
        _check_text(name, f"{file}, line 1")
    return names


def _csv_row(cells: dict[Any, Any], names: list[str], place: str) -> Row:
    if None in cells or None in cells.values():
        own = [text for name, text in cells.items() if name is not None and text is not None]
        held = len(own) + len(cells.get(None, ()))
        raise DataError(
            f"{place}: the heading has {len(names)} column(s) ({', '.join(names)}), this row has "
            f"{held} cell(s); columns are separated by commas, and a text that holds one stands in "
            'double quotes (").'
        )
    for text in cells.values():
        _check_text(text, place)
    return dict(cells)


def _check_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00
        raise DataError(f"{place}: expected UTF-8 text, found the byte 0x{byte:02x}.") from error


def parquet_rows(file: Path) -> Iterator[Row]:
    """Rows of a Parquet file, a few at a time.

    Raises:
        DataError: it cannot be read.
    """
    for _, row in parquet(file, contextlib.nullcontext):
        yield row


def parquet(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
    """Places and rows of a Parquet file, a few at a time."""
    import pyarrow.parquet as pq

    begin = 1
    with _unreadable(f"The Parquet file {file} cannot be read"):
        opened = pq.ParquetFile(file)
    with opened:
        batches = opened.iter_batches(batch_size=256)
        while True:
            with _unreadable(f"The Parquet file {file} cannot be read behind row {begin - 1}"):
                batch = next(batches, None)
            if batch is None:
                return
            for index, row in enumerate(_batch_rows(file, batch, begin, guard), start=begin):
                if row is not None:
                    yield f"{file}, row {index}", row
            begin += batch.num_rows


def _batch_rows(file: Path, batch: Any, begin: int, guard: Guard) -> Iterator[Row | None]:
    """The rows of a batch; None for an invalid row. Rows are converted singly if one is invalid."""
    try:
        with _unreadable(""):
            rows = batch.to_pylist()
    except DataError:
        for index in range(batch.num_rows):
            row = None
            with guard(), _unreadable(f"{file}, row {begin + index}: cannot be read"):
                row = batch.slice(index, 1).to_pylist()[0]
            yield row
        return
    yield from rows


@contextlib.contextmanager
def _unreadable(what: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    # The last three errors come from values that no Python object can hold.
    except (pa.ArrowException, OSError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{what}: {error}") from error


def arrow(file: Path) -> Iterator[tuple[str, Row]]:
    """Places and rows of an Arrow file."""
    from datasets import Dataset

    try:
        rows = Dataset.from_file(str(file))
    except Exception as error:  # pyarrow raises several unrelated kinds
        raise DataError(f"The Arrow file {file} cannot be read: {error}") from error
    for index, row in enumerate(arrow_rows(rows), start=1):
        yield f"{file}, row {index}", row


def arrow_rows(rows: Any) -> Iterator[Row]:
    """Rows of a `datasets.Dataset`, a few at a time."""
    for batch in rows.with_format(None).iter(batch_size=256):
        names = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(names, values, strict=True))
