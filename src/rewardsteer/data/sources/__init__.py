"""Registry of data sources, by name.

A source is a function ``load(split, *, path=None, reading=None, **options) ->
Iterator[Comparison]``. Sources of responses with numbers return ``Iterator[Responses]``.

    split    ``train`` or ``test``; a source without a split of that name raises `NoSplitError` and
             is then split by prompt
    path     a local file or folder; None reads the source's published data set on the hub
    reading  a `reading.Reading`, which holds the settings and counts skipped rows
"""

from pathlib import Path
from typing import Any

from rewardsteer.data.config import DataConfig
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison
from rewardsteer.registry import Registry

_PLACE = "rewardsteer.data.sources"

SOURCES = Registry(
    "data source",
    {
        name: f"{_PLACE}.{name}:load"
        for name in (
            "arithmetic", "graded", "helpsteer", "hh", "judged", "labels", "math_shepherd",
            "openmath", "pairs", "prm800k", "ranked", "ratings", "rlhflow_steps", "stepwise",
            "tldr", "ultrafeedback",
        )
    },
)


class NoSplitError(LookupError):
    """A source has no such split; always caught, never shown to users."""


def check_paths(config: DataConfig) -> None:
    """Raise `DataError` where a source of ours has a path that does not exist."""
    for source in config.sources:
        if source.path is not None and source.name in SOURCES.names():
            check_path(Path(source.path))


def check_path(place: Path) -> None:
    """Raise `DataError` where nothing is at a source's path."""
    if not place.exists():
        raise DataError(f"Expected data at {place}, there is no such file or folder.")


def require_pairs(path: Path) -> None:
    """Raise `DataError` where the path is not a file or folder of pairs."""
    if not path.exists():
        raise DataError(f"Expected pairs at {path}, there is no such file or folder.")


def held_out_rows(source: str, path: Path) -> list[Any]:
    """The rows of a source's test split, or all of them where it has none: comparisons, or
    responses with numbers.

    Raises:
        ConfigError: there is no such source.
        DataError: the path does not exist, or a row is invalid.
    """
    require_pairs(path)
    load = SOURCES.get(source)
    try:
        return list(load("test", path=str(path)))
    except NoSplitError:
        return list(load("train", path=str(path)))


def held_out_pairs(source: str, path: Path) -> list[Comparison]:
    """The comparisons of a source's test split, or all of them where it has none.

    Raises:
        ConfigError: there is no such source.
        DataError: the path does not exist, or a row is not a comparison.
    """
    return only_pairs(held_out_rows(source, path), source)


def only_pairs(rows: list[Any], source: str) -> list[Comparison]:
    """The rows, after a check that all of them are pairs.

    Raises:
        DataError: a row is not a pair; names the first one.
    """
    other = next((row for row in rows if not isinstance(row, Comparison) or row.single), None)
    if other is not None:
        raise DataError(
            f"{other.place or other.id}: expected pairs of responses, the source {source} gives "
            "rows of one response or responses with numbers; name a source of pairs."
        )
    return rows
