"""Rows of local files, with faults named by file and line."""

import contextlib
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

from pydantic import ValidationError

from rewardsteer.data.sources.json_list import CHUNK, list_items
from rewardsteer.errors import DataError
from rewardsteer.outputs import parse_json

Row = dict[str, Any]
Guard = Callable[[], AbstractContextManager[None]]
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
# What reading a file may raise, a damaged .gz included.
READ_FAILURES = (OSError, EOFError, zlib.error)


def require(row: Row, fields: list[str], place: str) -> None:
    """Raise `DataError` naming absent fields and those that are there."""
    absent = [name for name in fields if name not in row]
    if absent:
        raise DataError(
            f"{place}: expected the field(s) {', '.join(absent)}, found "
            f"{', '.join(sorted(row)) or 'none'}."
        )


def kind_of(value: Any) -> str:
    """What a value is, for messages: ``a number (3)``."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return f"a number ({value})"
    names: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")


@contextlib.contextmanager
def well_formed(place: str) -> Iterator[None]:
    """Say which row it was where a value is of another kind than the code within expects.

    Raises:
        DataError: in place of what such values raise.
    """
    try:
        yield
    except DataError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the row"
        raise DataError(
            f"{place}: a field holds another kind of value than expected: {name} is "
            f"{kind_of(first['input'])} ({first['msg']})."
        ) from error
    except KeyError as error:
        raise DataError(f"{place}: a field lacks the key {error}.") from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        problem = str(error).splitlines()[0] if str(error) else "no further words"
        raise DataError(
            f"{place}: a field holds another kind of value than expected, such as a number where "
            f"text should stand ({problem})."
        ) from error


def shared_beginning(first: str, second: str) -> str:
    """The longest common prefix of two texts."""
    length = 0
    for ours, theirs in zip(first, second, strict=False):
        if ours != theirs:
            break
        length += 1
    return first[:length]


def kind(file: Path) -> str:
    """The ending of a file's name, without ``.gz``."""
    return Path(file.name.removesuffix(".gz")).suffix


def open_bytes(file: Path) -> IO[bytes]:
    """A file's bytes, of a ``.gz`` what was compressed; see `READ_FAILURES`."""
    opener: Any = gzip.open if file.name.endswith(".gz") else open
    return cast(IO[bytes], opener(file, "rb"))


def parse_object(line: bytes, place: str) -> Row:
    """The JSON object of one line; raises `DataError` naming the place."""
    return _object(_parse(_decode(line, place), place), place)


def read_file(file: Path, guard: Guard = contextlib.nullcontext) -> Iterator[tuple[str, Row]]:
    """Yield ``(place, row)`` of one file; an empty one is an error.

    Args:
        file: JSONL, JSON, CSV, Parquet or Arrow; the text forms also with ``.gz``.
        guard: entered for each row; it may suppress the `DataError` of a bad one.
    """
    ending = kind(file)
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
        ".parquet": lambda path: _parquet(path, guard), ".arrow": _arrow,
        ".csv": lambda path: _csv(path, guard),
        ".jsonl": lambda path: _jsonl(path, guard), ".json": lambda path: _json(path, guard),
    }
    if ending not in readers or (ending in (".parquet", ".arrow") and file.suffix == ".gz"):
        raise DataError(
            f"The file {file} has an unknown ending; expected {', '.join(SUFFIXES)}, the text "
            "forms also with .gz."
        )
    count = 0
    for place, row in readers[ending](file):
        count += 1
        yield place, row
    if count == 0:
        raise DataError(f"The file {file} holds no rows.")


def _lines(file: Path) -> Iterator[bytes]:
    # Split at "\n" alone: JSON strings may hold other characters that str.splitlines breaks at.
    try:
        with open_bytes(file) as stream:
            yield from stream
    except READ_FAILURES as error:
        raise DataError(f"The file {file} cannot be read: {error}.") from error


def _decode(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: expected UTF-8 text ({error}).") from error


def _jsonl(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            place = f"{file}, line {number}"
            row = None
            with guard():
                row = parse_object(line, place)
            if row is not None:
                yield place, row


def _json(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
    """A list of objects, read item by item; or one object a line under the ending of a list."""
    begin = b"".join(itertools.islice(_lines(file), 1)).lstrip(b"\xef\xbb\xbf \t\r\n")
    if begin[:1] == b"{" and _is_object(begin):
        yield from _jsonl(file, guard)
        return
    index = 0
    try:
        for index, text in enumerate(list_items(_text_pieces(file)), start=1):
            place = f"{file}, row {index}"
            row = None
            with guard():
                row = _object(_parse(text, place), place)
            if row is not None:
                yield place, row
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON after row {index} ({error}).") from error
    except TypeError as error:
        raise DataError(f"{file}: expected a list of objects, got {error}.") from error


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line.decode()), dict)
    except ValueError:
        return False


def _text_pieces(file: Path) -> Iterator[str]:
    try:
        with io.TextIOWrapper(
            cast(Any, open_bytes(file)), encoding="utf-8-sig", newline=""
        ) as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected UTF-8 text ({error}).") from error
    except READ_FAILURES as error:
        raise DataError(f"The file {file} cannot be read: {error}.") from error


def _csv(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(1 << 30)
    # Bytes that are no text come through as such and are found in the row that has them.
    try:
        with io.TextIOWrapper(
            cast(Any, open_bytes(file)), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as stream:
            yield from _csv_rows(file, csv.DictReader(stream), guard)
    except READ_FAILURES as error:
        raise DataError(f"The file {file} cannot be read: {error}.") from error


def _csv_rows(file: Path, reader: Any, guard: Guard) -> Iterator[tuple[str, Row]]:
    # The heading concerns every row.
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
        raise DataError(f"{place}: expected {len(names)} cells in each row.")
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
    for _, row in _parquet(file, contextlib.nullcontext):
        yield row


def _parquet(file: Path, guard: Guard) -> Iterator[tuple[str, Row]]:
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
    """The rows of a batch; one by one where one of them is at fault, which is None."""
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
    # Values that no Python object holds raise of the last three kinds.
    except (pa.ArrowException, OSError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{what}: {error}") from error


def _arrow(file: Path) -> Iterator[tuple[str, Row]]:
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


def _parse(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}).") from error


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(row).__name__}.")
    return row
