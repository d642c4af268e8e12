"""Reading of a source's rows from a file, a folder, a saved data set or the hub."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardsteer.data.sources import NoSplitError, check_path
from rewardsteer.data.sources.files import read_file
from rewardsteer.data.sources.opening import Row
from rewardsteer.data.sources.splits import choose_splits, files_by_split
from rewardsteer.data.sources.tables import arrow_rows
from rewardsteer.errors import ConfigError, DataError


@dataclass
class Reading:
    """Settings for reading a source, and counts of the rows that were skipped.

    Attributes:
        on_error: ``raise``, or ``drop``: count invalid rows and continue.
        hub: a data set on the hub in place of the published one.
        config: the hub data set's configuration.
        revision: its branch, tag or commit.
        data_dir: a folder within it, or within a local folder.
        splits: ``{train: …, test: …}``, the data's own names of these splits.
        dropped: ``{reason: rows}``.
        notes: notes for the log.
    """

    on_error: str = "raise"
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def row(self) -> Iterator[None]:
        """Context of a row: with ``on_error="drop"`` a `DataError` in it is counted, not raised."""
        try:
            yield
        except DataError as error:
            if self.on_error != "drop":
                raise
            self.dropped["with a fault"] += 1
            if self.dropped["with a fault"] == 1:
                self.notes.append(f"The first row that was dropped for a fault: {error}")

    def skip(self, reason: str) -> None:
        """Count a skipped row under a reason."""
        self.dropped[reason] += 1

    def note(self, text: str) -> None:
        """Add a note, unless it was added before."""
        if text not in self.notes:
            self.notes.append(text)


def check_place(source: str, path: str | None, reading: Reading) -> None:
    """Raise `ConfigError` where neither a file nor a data set on the hub is named."""
    if path is None and reading.hub is None:
        raise ConfigError(f"The source {source} has no published place; give a path or hub.")


def read_rows(
    split: str, path: str | None, hub_name: str, *, hub_splits: dict[str, str] | None = None,
    reading: Reading | None = None, **hub_options: Any,
) -> Iterator[tuple[str, Row]]:
    """Yield ``(place, row)``; the place ("FILE, line 3") is for messages.

    Args:
        path: a local file (which is all training data), a folder of files whose names or folders
            name splits, or a folder saved by ``datasets``; None reads the hub.
        hub_name: published data set, read when ``path`` is None.
        hub_splits: the hub's names of the splits ``train`` and ``test``, where they differ.
        reading: split names, the data set on the hub, and the handling of invalid rows.
        hub_options: further arguments of ``datasets.load_dataset``.

    Raises:
        NoSplitError: there is no such split.
        DataError: missing, empty or malformed data.
    """
    reading = reading or Reading()
    if path is None:
        if reading.hub is None:
            reading_splits = {**(hub_splits or {}), **reading.splits}
        else:
            reading_splits = reading.splits
        yield from _hub(reading.hub or hub_name, split, reading_splits, reading, hub_options)
        return
    place = Path(path)
    check_path(place)
    if place.is_dir():
        yield from _folder(place / (reading.data_dir or ""), split, reading)
        return
    if split != "train":
        raise NoSplitError(split)
    yield from read_file(place, reading.row)


def _hub(
    name: str, split: str, splits: dict[str, str], reading: Reading, options: dict[str, Any]
) -> Iterator[tuple[str, Row]]:
    import datasets

    given = {"name": reading.config, "revision": reading.revision, "data_dir": reading.data_dir}
    options = options | {key: value for key, value in given.items() if value is not None}
    wanted = splits.get(split, split)
    try:
        rows = datasets.load_dataset(name, split=wanted, **options)
    except ValueError as error:
        if "split" not in str(error).lower():
            raise DataError(f"The data set {name} cannot be loaded: {error}") from error
        if split in reading.splits:
            raise DataError(f"The data set {name} has no split {wanted!r}: {error}") from error
        loaded = datasets.load_dataset(name, **options)
        chosen = choose_splits(list(loaded), split, reading.splits, name, reading.note)
        rows = datasets.concatenate_datasets([loaded[one] for one in chosen])
    except Exception as error:  # the hub client raises many unrelated kinds
        raise DataError(
            f"The data set {name} cannot be loaded ({type(error).__name__}: {error}); check the "
            "connection, or download it and give its folder as path."
        ) from error
    for index, row in enumerate(arrow_rows(rows), start=1):
        yield f"{name}, {wanted} row {index}", row


def _folder(folder: Path, split: str, reading: Reading) -> Iterator[tuple[str, Row]]:
    if not folder.is_dir():
        raise DataError(f"Expected a folder of data at {folder}, there is none.")
    if any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        yield from _saved(folder, split, reading)
        return
    files = files_by_split(folder)
    if not files:
        if split != "train":
            raise NoSplitError(split)
        known = sorted(file.name for file in folder.iterdir())
        raise DataError(
            f"Expected train.jsonl (or .json, .csv, .parquet) in {folder}, found "
            f"{', '.join(known[:8]) or 'nothing'}."
        )
    for name in choose_splits(list(files), split, reading.splits, folder, reading.note):
        for file in files[name]:
            yield from read_file(file, reading.row)


def _saved(folder: Path, split: str, reading: Reading) -> Iterator[tuple[str, Row]]:
    """Rows of a folder written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``."""
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # pyarrow raises several unrelated kinds
        raise DataError(f"The Arrow folder {folder} cannot be read: {error}") from error
    parts = {"": loaded}
    if isinstance(loaded, DatasetDict):
        chosen = choose_splits(list(loaded), split, reading.splits, folder, reading.note)
        parts = {f"{name} " if len(loaded) > 1 else "": loaded[name] for name in chosen}
    elif split != "train":
        raise NoSplitError(split)
    for name, part in parts.items():
        for index, row in enumerate(arrow_rows(part), start=1):
            yield f"{folder}, {name}row {index}", row
