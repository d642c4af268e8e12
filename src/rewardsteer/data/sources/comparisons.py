"""Reading of sources that hold one comparison per row."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rewardsteer.data.sources.files import Row, well_formed
from rewardsteer.data.sources.reading import Reading, check_place, read_rows
from rewardsteer.records import Comparison

Parse = Callable[[Row, str], Comparison | str]


def read_comparisons(
    source: str, split: str, path: str | None, reading: Reading | None, parse: Parse, *,
    hub: str = "", **more: Any,
) -> Iterator[Comparison]:
    """The `comparisons` of the rows at a path, or of the data set on the hub.

    Args:
        source, split, parse: see `comparisons`.
        path, reading: as in every source's ``load``.
        hub: the published data set; "": there is none.
        more: options of `read_rows`.

    Raises:
        ConfigError: neither a path nor a data set.
        DataError: an invalid row; names it.
    """
    reading = reading or Reading()
    if not hub:
        check_place(source, path, reading)
    yield from comparisons(
        source, split, read_rows(split, path, hub, reading=reading, **more), reading, parse
    )


def comparisons(
    source: str, split: str, rows: Iterable[tuple[str, Row]], reading: Reading, parse: Parse
) -> Iterator[Comparison]:
    """The comparisons of a source with one comparison per row.

    Args:
        rows: places and rows, see `read_rows`.
        reading: handling of invalid rows.
        parse: takes a row and its place; returns its comparison (without an id where the row has
            none), or the reason to skip the row.

    Raises:
        DataError: an invalid row; names it.
    """
    for index, (place, row) in enumerate(rows):
        found: Comparison | str = ""
        with reading.row(), well_formed(place):
            found = parse(row, place)
            if isinstance(found, str):
                reading.skip(found)
        if isinstance(found, Comparison):
            yield found.model_copy(update={
                "id": found.id or f"{source}-{split}-{index}", "source": source, "place": place,
            })
