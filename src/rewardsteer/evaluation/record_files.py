"""Files of records that an evaluation appends to, batch by batch, and resumes from."""

from pathlib import Path
from typing import TypeVar

from rewardsteer.errors import DataError
from rewardsteer.outputs import read_jsonl, repair_jsonl
from rewardsteer.records import Record

R = TypeVar("R", bound=Record)


def load_records(place: Path, kind: type[R], name: str) -> list[R]:
    """The records of a JSONL file in order, after cutting off a torn last line; none without a
    file.

    Args:
        place: the file.
        kind: of the records.
        name: what a record is called in messages.

    Raises:
        DataError: a line holds no such record.
    """
    if not place.exists():
        return []
    repair_jsonl(place)
    try:
        return [kind.model_validate(row) for _, row in read_jsonl(place)]
    except ValueError as error:
        raise DataError(f"{place} holds a line that is no {name}: {error}") from error
