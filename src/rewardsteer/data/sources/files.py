"""Rows of local files and of hub data sets, with faults named by file and line."""

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from rewardsteer.data.sources import NoSplitError
from rewardsteer.errors import DataError
from rewardsteer.outputs import parse_json

Row = dict[str, Any]
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
# What reading a file may raise, a damaged .gz included.
READ_FAILURES = (OSError, EOFError, zlib.error)


def read_rows(
    split: str, path: str | None, hub_name: str, *, hub_splits: dict[str, str] | None = None,
    **hub_options: Any,
) -> Iterator[tuple[str, Row]]:
    """Yield ``(place, row)``, the place for messages ("file, line 3").

    Args:
        split: ``train`` or ``test``.
        path: a local file (which is all training data), a folder with ``train.*`` and ``test.*``
            files, or an Arrow folder saved by ``datasets``; None reads the hub.
        hub_name: published data set, read when ``path`` is None.
        hub_splits: the hub's names of our splits where they differ.
        hub_options: further arguments of ``datasets.load_dataset``.

    Raises:
        NoSplitError: there is no such split.
        DataError: missing, empty or malformed data.
    """
    if path is None:
        name = (hub_splits or {}).get(split, split)
        yield from _hub(hub_name, name, **hub_options)
        return
    place = Path(path)
    if not place.exists():
        raise DataError(f"Expected data at {place}, there is no such file or folder.")
    if place.is_dir():
        yield from _folder(place, split)
        return
    if split != "train":
        raise NoSplitError(split)
    yield from _file(place)


def require(row: Row, fields: list[str], place: str) -> None:
    """Raise `DataError` naming absent fields and those that are there."""
    absent = [name for name in fields if name not in row]
    if absent:
        raise DataError(
            f"{place}: expected the field(s) {', '.join(absent)}, found "
            f"{', '.join(sorted(row)) or 'none'}."
        )


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
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError
    ) as error:
        problem = str(error).splitlines()[0] if str(error) else ""
        raise DataError(
            f"{place}: a field holds another kind of value than expected, such as a number where "
            f"text should stand ({type(error).__name__}: {problem})."
        ) from error


def shared_beginning(first: str, second: str) -> str:
    """The longest common prefix of two texts."""
    length = 0
    for ours, theirs in zip(first, second, strict=False):
        if ours != theirs:
            break
        length += 1
    return first[:length]


def _hub(name: str, split: str, **options: Any) -> Iterator[tuple[str, Row]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split=split, **options)
    except ValueError as error:
        if "split" in str(error).lower():
            raise NoSplitError(split) from error
        raise DataError(f"The data set {name} cannot be loaded: {error}") from error
    except Exception as error:  # the hub client raises many unrelated kinds
        raise DataError(
            f"The data set {name} cannot be loaded ({type(error).__name__}: {error}); check the "
            "connection, or download it and give its folder as path."
        ) from error
    for index, row in enumerate(rows, start=1):
        yield f"{name}, {split} row {index}", dict(row)


def _folder(folder: Path, split: str) -> Iterator[tuple[str, Row]]:
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        yield from _arrow(folder, split)
        return
    files = [
        file for file in sorted(folder.iterdir())
        if file.name.split(".")[0].split("-")[0] == split and _kind(file) in _SUFFIXES
    ]
    if not files:
        known = sorted(file.name for file in folder.iterdir())
        if split != "train":
            raise NoSplitError(split)
        raise DataError(
            f"Expected train.jsonl (or .json, .csv, .parquet) in {folder}, found "
            f"{', '.join(known[:8]) or 'nothing'}."
        )
    for file in files:
        yield from _file(file)


def _arrow(folder: Path, split: str) -> Iterator[tuple[str, Row]]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # pyarrow raises several unrelated kinds
        raise DataError(f"The Arrow folder {folder} cannot be read: {error}") from error
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise NoSplitError(split)
        loaded = loaded[split]
    elif split != "train":
        raise NoSplitError(split)
    for index, row in enumerate(loaded, start=1):
        yield f"{folder}, row {index}", dict(row)


def _kind(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix


def open_bytes(file: Path) -> IO[bytes]:
    """A file's bytes, of a ``.gz`` what was compressed; see `READ_FAILURES`."""
    opener: Any = gzip.open if file.name.endswith(".gz") else open
    return cast(IO[bytes], opener(file, "rb"))


def parse_object(line: bytes, place: str) -> Row:
    """The JSON object of one line; raises `DataError` naming the place."""
    return _object(_parse(_decode(line, place), place), place)


def _file(file: Path) -> Iterator[tuple[str, Row]]:
    """Rows of one file; an empty one is an error."""
    kind = _kind(file)
    readers = {".parquet": _parquet, ".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    if kind not in readers or (kind == ".parquet" and file.suffix == ".gz"):
        raise DataError(
            f"The file {file} has an unknown ending; expected {', '.join(_SUFFIXES)}, the text "
            "forms also with .gz."
        )
    count = 0
    for place, row in readers[kind](file):
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


def _jsonl(file: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            place = f"{file}, line {number}"
            yield place, parse_object(line, place)


def _json(file: Path) -> Iterator[tuple[str, Row]]:
    text = _decode(b"".join(_lines(file)), str(file))
    if not text.strip():
        return
    rows = _parse(text, str(file))
    if not isinstance(rows, list):
        raise DataError(f"{file}: expected a list of objects, got {type(rows).__name__}.")
    for index, row in enumerate(rows, start=1):
        place = f"{file}, row {index}"
        yield place, _object(row, place)


def _csv(file: Path) -> Iterator[tuple[str, Row]]:
    text = _decode(b"".join(_lines(file)), str(file))
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            place = f"{file}, line {reader.line_num}"
            if None in row or None in row.values():
                names = reader.fieldnames or []
                raise DataError(f"{place}: expected {len(names)} cells in each row.")
            yield place, dict(row)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not valid CSV ({error}).") from error


def parquet_rows(file: Path) -> Iterator[Row]:
    """Rows of a Parquet file, a few at a time.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    # Values that no Python object holds raise of the last three kinds.
    except (pa.ArrowException, OSError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"The Parquet file {file} cannot be read: {error}") from error


def _parquet(file: Path) -> Iterator[tuple[str, Row]]:
    for index, row in enumerate(parquet_rows(file), start=1):
        yield f"{file}, row {index}", row


def _parse(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}).") from error


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(row).__name__}.")
    return row
