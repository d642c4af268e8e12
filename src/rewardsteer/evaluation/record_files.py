"""Files of records that an evaluation appends to, batch by batch, and resumes from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rewardsteer.errors import DataError
from rewardsteer.faults import checked
from rewardsteer.outputs import file_name, read_json, read_jsonl, repair_jsonl
from rewardsteer.records import EvalRecord, Record

R = TypeVar("R", bound=Record)
RecordsByMethod = dict[str, list[EvalRecord]]


def load_records(place: Path, kind: type[R], name: str) -> list[R]:
    """The records of a JSONL file in order, after cutting off a torn last line; none without a
    file.

    Args:
        kind: class of the records.
        name: name of a record in messages.

    Raises:
        DataError: a line is no record of this class.
    """
    if not place.exists():
        return []
    repair_jsonl(place)
    try:
        return [checked(kind, row) for _, row in read_jsonl(place)]
    except ValueError as error:
        raise DataError(f"{place} holds a line that is no {name}: {error}") from error


def read_records(place: Path) -> dict[str, EvalRecord]:
    """Records by prompt id, after cutting off a torn last line; none without a file."""
    return {one.generation.id: one for one in load_records(place, EvalRecord, "evaluation record")}


def finished_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a comparison.

    Raises:
        DataError: there is none.
    """
    place = folder / "summary.json"
    if not place.is_file():
        raise DataError(f"Expected a finished comparison of methods in {folder}, found no {place}.")
    return read_json(place)


def records_by_method(folder: Path, summary: Mapping[str, Any]) -> RecordsByMethod:
    """Records of each method, in the order of their ids.

    Raises:
        DataError: a method has no records.
    """
    found: RecordsByMethod = {}
    for label in summary["methods"]:
        records = read_records(folder / file_name(label))
        if not records:
            raise DataError(
                f"Expected the answers of {label!r} in {folder}, found none; give the folder as "
                "'evaluate generation' wrote it."
            )
        found[label] = [records[key] for key in sorted(records)]
    return found
