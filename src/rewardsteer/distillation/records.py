"""Records of a teacher: its rewards of candidates, in shards that are written whole or not at all.

    RECORDS/manifest.json      models and settings           RECORDS/shard-00000.arrow   rows

A row is a response of the policy, see `Record`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from rewardsteer.configuration import Config
from rewardsteer.data.digests import digest
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.faults import checked
from rewardsteer.outputs import read_json, write_bytes, write_json

MANIFEST = "manifest.json"


class Record(TypedDict):
    """A response with the teacher's rewards, as a row of training (n positions, K candidates).

    Attributes:
        id, group: of the sample, and of its prompt.
        prompt_ids, chosen_ids: token ids of prompt and response.
        rejected_ids: none.
        candidate_lengths: n numbers of response tokens that the prefixes have.
        tokens, log_policy, teacher, drawn, unseen: see `rewardsteer.tensors.Candidates`.
    """

    id: str
    group: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    candidate_lengths: list[int]
    tokens: list[list[int]]
    log_policy: list[list[float]]
    teacher: list[list[float]]
    drawn: list[int]
    unseen: list[list[int]]


class Source(Config):
    """The models and settings that records were made with.

    Attributes:
        policy, teacher: fingerprints of their weights; the name of a teacher without weights.
        tokenizer: hash of the policy's vocabulary.
        template: how prompts were written, as plain values.
        settings: of sampling, candidates, prompts and seed.
        shards: how many there are when all are written.
    """

    policy: str
    teacher: str
    tokenizer: str
    template: dict[str, Any]
    settings: dict[str, Any]
    shards: int


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.arrow"


def begin_records(folder: Path, source: Source) -> list[int]:
    """The shards that are still to be written.

    Raises:
        MismatchError: the folder holds records of another teacher, policy or setting.
    """
    if (folder / MANIFEST).exists():
        check_source(folder, source.model_dump())
    else:
        write_json(folder / MANIFEST, source.model_dump(mode="json"))
    return [one for one in range(source.shards) if not shard_path(folder, one).exists()]


def check_source(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse records that were made with other models or settings.

    Args:
        wanted: fields of `Source` and their values.

    Raises:
        MismatchError: names the first difference.
    """
    found = read_source(folder)
    for name, other in wanted.items():
        one = getattr(found, name)
        if one != other:
            shown = "" if isinstance(one, dict) else f" ({one}, expected {other})"
            raise MismatchError(
                f"The records in {folder} are of another {name.removesuffix('s')}{shown}; make new "
                "ones in another folder, or name the one that they were made with."
            )


def read_source(folder: Path) -> Source:
    """The manifest of records.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not (folder / MANIFEST).exists():
        raise DataError(
            f"Expected a teacher's records in {folder}, there is no {MANIFEST}; 'rewardsteer "
            "distil' writes them to OUT/records."
        )
    try:
        return checked(Source, read_json(folder / MANIFEST))
    except ValueError as error:
        raise DataError(f"The manifest {folder / MANIFEST} is damaged: {error}") from error


def write_shard(folder: Path, number: int, rows: Sequence[Record]) -> None:
    """Write a shard whole or not at all."""
    import pyarrow as pa
    from pyarrow import feather

    stream = io.BytesIO()
    feather.write_feather(pa.Table.from_pylist(list(rows), schema=_schema()), stream)
    write_bytes(shard_path(folder, number), stream.getvalue())


def read_records(folder: Path) -> Any:
    """All records as a `datasets.Dataset`.

    Raises:
        DataError: a shard is missing or damaged, or there are no rows.
    """
    import datasets
    import pyarrow as pa
    from pyarrow import feather

    tables = []
    for number in range(read_source(folder).shards):
        place = shard_path(folder, number)
        try:
            tables.append(feather.read_table(place).cast(_schema()))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"The records {place} are missing or damaged ({error}); delete the file and go on "
                "with resume=True (--resume)."
            ) from error
    whole = pa.concat_tables(tables)
    if not len(whole):
        raise DataError(f"The records in {folder} hold no position: all responses are empty.")
    return datasets.Dataset(datasets.table.InMemoryTable(whole))


def split_records(rows: Any, fraction: float, seed: int) -> tuple[Any, Any]:
    """Training and held-out rows; responses to one prompt stay together. At least one prompt is on
    either side.

    Raises:
        DataError: there is only one prompt.
    """
    groups = sorted(set(rows["group"]), key=lambda one: digest([seed, one]))
    if len(groups) < 2:
        raise DataError("Distillation needs records of at least 2 prompts, to hold one out; got 1.")
    held = set(groups[: min(max(round(fraction * len(groups)), 1), len(groups) - 1)])
    inside = [index for index, group in enumerate(rows["group"]) if group in held]
    outside = [index for index, group in enumerate(rows["group"]) if group not in held]
    return rows.select(outside), rows.select(inside)


def _schema() -> Any:
    import pyarrow as pa

    ids, numbers = pa.list_(pa.int32()), pa.list_(pa.float32())
    return pa.schema([
        ("id", pa.string()), ("group", pa.string()), ("prompt_ids", ids), ("chosen_ids", ids),
        ("rejected_ids", ids), ("candidate_lengths", ids), ("tokens", pa.list_(ids)),
        ("log_policy", pa.list_(numbers)), ("teacher", pa.list_(numbers)), ("drawn", ids),
        ("unseen", pa.list_(ids)),
    ])
