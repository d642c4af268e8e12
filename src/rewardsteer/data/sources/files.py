"""Rows of local files; errors name the file and line."""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from rewardsteer.data.sources.json_list import CHUNK, list_items
from rewardsteer.data.sources.opening import READ_FAILURES, Guard, Row, open_bytes
from rewardsteer.data.sources.tables import arrow, parquet, read_csv
from rewardsteer.errors import DataError
from rewardsteer.faults import first_fault
from rewardsteer.outputs import parse_json

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")


def require(row: Row, fields: list[str], place: str, *, remedy: str = "") -> None:
    """Raise `DataError` where fields are absent; names them, the fields present and the remedy."""
    absent = [name for name in fields if name not in row]
    if absent:
        raise DataError(
            f"{place}: expected the field(s) {', '.join(absent)}, found {fields_of(row)}"
            f"{remedy and '; '}{remedy}."
        )


def fields_of(row: Iterable[str]) -> str:
    """The names of a row's fields, for messages."""
    return ", ".join(sorted(row)) or "none"


def kind_of(value: Any) -> str:
    """The type of a value with its content, for messages: ``a number (3)``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"a number ({value})"
    names: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")


@contextlib.contextmanager
def well_formed(place: str) -> Iterator[None]:
    """Turn errors from values of an unexpected type into a `DataError` that names the row.

    Raises:
        DataError: instead of ``KeyError``, ``TypeError`` and similar errors.
    """
    try:
        yield
    except DataError:
        raise
    except ValidationError as error:
        raise DataError(
            f"{place}: a field holds another kind of value than expected; "
            f"{first_fault(error)}."
        ) from error
    except KeyError as error:
        raise DataError(f"{place}: a field lacks the key {error}.") from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        problem = str(error).splitlines()[0] if str(error) else "no further words"
        raise DataError(
            f"{place}: a field holds another kind of value than expected, such as a number where "
            f"text should stand ({problem})."
        ) from error


def kind(file: Path) -> str:
    """The ending of a file's name, without ``.gz``."""
    return Path(file.name.removesuffix(".gz")).suffix


def parse_object(line: bytes, place: str) -> Row:
    """The JSON object of one line; raises `DataError` naming the place."""
    return _object(_parse(_decode(line, place), place), place)


def read_file(file: Path, guard: Guard = contextlib.nullcontext) -> Iterator[tuple[str, Row]]:
    """Yield ``(place, row)`` of one file; an empty file is an error.

    Args:
        file: JSONL, JSON, CSV, Parquet or Arrow; the text forms also with ``.gz``.
        guard: context manager entered for each row; may suppress the `DataError` of an invalid row.
    """
    ending = kind(file)
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
        ".parquet": lambda path: parquet(path, guard), ".arrow": arrow,
        ".csv": lambda path: read_csv(path, guard),
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
    """Rows of a ``.json`` file: a list of objects, read item by item, or one object per line."""
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


def _parse(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}).") from error


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(row).__name__}.")
    return row
