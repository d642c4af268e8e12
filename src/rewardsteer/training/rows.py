"""Rows of prepared data for a phase: their lengths, which fit the model, and which suit an
objective."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rewardsteer.data.store import load_set
from rewardsteer.errors import DataError
from rewardsteer.objectives.base import Objective

logger = logging.getLogger(__name__)

Lengths = NDArray[np.int64]


def read_lengths(rows: Any, *, paired: bool) -> Lengths:
    """Tokens of each response with its prompt, ``[N, 2]`` (chosen, rejected), ``[N, 1]`` where
    only chosen ones are read or rows have a label, or ``[N, K]`` of responses with numbers, 0 where
    a row has fewer than the K of the longest.

    Args:
        rows: a `datasets.Dataset` or a list of rows of the store's schema.
        paired: whether rejected responses are read.
    """
    if len(rows) and "response_ids" in rows[0]:
        return _response_lengths(rows)
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"][: 3 if paired else 2]
    if len(rows) and "label_ids" in rows[0]:
        columns = ["prompt_ids", "label_ids"]
    counts = _counts(rows, columns)
    lengths: Lengths = (counts[:, :1] + counts[:, 1:]).astype(np.int64)
    return lengths


def _response_lengths(rows: Any) -> Lengths:
    listed = rows if isinstance(rows, list) else rows.select_columns(["prompt_ids", "response_ids"])
    counts = [
        [len(row["prompt_ids"]) + len(ids) for ids in row["response_ids"]] for row in listed
    ]
    lengths: Lengths = np.zeros((len(counts), max(map(len, counts))), dtype=np.int64)
    for row, count in zip(lengths, counts, strict=True):
        row[: len(count)] = count
    return lengths


def sets_of(objective: Objective) -> tuple[str, str]:
    """The sets that an objective trains on and is evaluated on."""
    if objective.rows == "responses":
        return "responses", "responses"
    return "partial" if objective.prefixes else "full", "partial"


def count_single(rows: Any) -> int:
    """How many rows of pairs have one response alone.

    Args:
        rows: a `datasets.Dataset` or a list of rows of the store's schema.
    """
    if "rejected_ids" not in (rows[0] if len(rows) else ()):
        return 0
    return int((_counts(rows, ["rejected_ids"]) == 0).sum())


def _counts(rows: Any, columns: list[str]) -> NDArray[np.int64]:
    """Tokens in each column's list ``[N, C]``."""
    if isinstance(rows, list):
        return np.array([[len(row[name]) for name in columns] for row in rows])
    import pyarrow.compute as pc

    tables = rows.select_columns(columns).with_format("arrow").iter(10_000)
    return np.concatenate([
        np.stack([pc.list_value_length(table[name]).to_numpy() for name in columns], axis=1)
        for table in tables
    ])


def check_rows(objective: Objective, rows: Any, data: Path) -> None:
    """Refuse rows that lack what an objective uses.

    Args:
        rows: a `datasets.Dataset` of the training split.
        data: the folder of prepared data, for messages.

    Raises:
        DataError: rows without labelled steps or without the numbers that the objective names, or
            rows of one response for an objective on pairs.
    """
    if objective.prefixes == "step_lengths" and "step_lengths" not in rows.column_names:
        raise DataError(
            f"The objective {objective.name!r} needs responses with labelled steps, and the data "
            f"in {data} has none; prepare it from the source stepwise, prm800k, math_shepherd or "
            "rlhflow_steps."
        )
    features = rows.features.get("numbers") if objective.numbers else None
    missing = [name for name in objective.numbers if name not in (features or {})]
    if missing:
        raise DataError(
            f"The objective {objective.name!r} needs the number(s) {', '.join(missing)} of each "
            f"response, and the data in {data} has {', '.join(features or {}) or 'none'}; name "
            "those in attributes of the objective's options (and of the head, if it is a head of "
            "attributes), or prepare the data with them."
        )
    single = count_single(rows) if objective.rows == "pairs" else 0
    if single:
        raise DataError(
            f"The objective {objective.name!r} compares two responses, and {single} of the "
            f"{len(rows)} training rows in {data} have one; choose an objective on single "
            "responses, or leave these rows out."
        )


def training_rows(objective: Objective, data: Path) -> Any:
    """The rows of prepared data that an objective trains on, as a `datasets.Dataset`.

    Raises:
        DataError: none is left, or they hold less than the objective reads, see `check_rows`.
    """
    rows = load_set(data, "train", sets_of(objective)[0])
    check_rows(objective, rows, data)
    if objective.prefixes not in (None, "all"):
        rows = rows.filter(bool, input_columns=objective.prefixes)
    if len(rows) == 0:
        raise DataError(
            f"No training rows are left for the objective {objective.name!r}: no response is long "
            "enough for a prefix. Lower prefix_start: data.prefix_start=N if the run prepares its "
            "data, else prefix_start=N of 'rewardsteer data prepare'."
        )
    return rows


def drop_too_long(
    rows: Any, limit: int | None, *, paired: bool = True, what: str = "training"
) -> tuple[Any, int]:
    """Rows that fit into the positions that the model was built for, and how many do not.

    Args:
        rows: a `datasets.Dataset` of the store's schema.
        limit: see `position_limit`; None keeps all.
        paired: whether rejected responses are read.
        what: of the rows, for messages.

    Raises:
        DataError: no training row is left.
    """
    fits = _fit(rows, limit, paired=paired)
    dropped = int((~fits).sum())
    if not dropped:
        return rows, 0
    if dropped == len(rows) and what == "training":
        _refuse_all(dropped, limit)
    logger.warning(
        "%d of %d %s rows are longer than the %d positions of the base model and are left out",
        dropped, len(rows), what, limit,
    )
    return rows.select(np.flatnonzero(fits)), dropped


def _fit(rows: Any, limit: int | None, *, paired: bool) -> NDArray[np.bool_]:
    """Which rows fit into so many positions."""
    if limit is None or len(rows) == 0:
        return np.ones(len(rows), dtype=bool)
    fits: NDArray[np.bool_] = read_lengths(rows, paired=paired).max(axis=1) <= limit
    return fits


def _refuse_all(count: int, limit: int | None) -> NoReturn:
    raise DataError(
        f"All {count} training rows are longer than the {limit} positions of the base model; "
        "prepare the data with a smaller data.max_length, or take another base model."
    )


def check_phases(objectives: Iterable[Objective], data: Path, limit: int | None) -> None:
    """Refuse data that holds no row for one of the objectives of a run, before any of them trains.

    Args:
        objectives: of all phases.
        data: the folder of prepared data.
        limit: see `drop_too_long`.

    Raises:
        DataError: see `training_rows` and `drop_too_long`.
    """
    for objective in {(one.name, one.prefixes, one.numbers): one for one in objectives}.values():
        rows = training_rows(objective, data)
        if not _fit(rows, limit, paired=objective.rows == "pairs").any():
            _refuse_all(len(rows), limit)


def draw_prefixes(rows: Any, name: str, count: int, seed: int) -> Any:
    """So many rows with a single prefix each, drawn at random without replacement.

    Args:
        rows: a `datasets.Dataset` of partial rows.
        name: the list of prefix lengths to draw from.
        count: all are taken where there are fewer.
        seed: of the draw.
    """
    import datasets

    # The index of rows that were chosen from others applies to no column read on its own.
    listed = rows.flatten_indices().with_format("numpy")[name]
    owners = np.repeat(np.arange(len(rows)), [len(one) for one in listed])
    lengths = np.concatenate([np.asarray(one, dtype=np.int64) for one in listed])
    draw = np.random.default_rng(seed).permutation(len(lengths))[:count]
    single = datasets.Dataset.from_dict({name: lengths[draw][:, None].tolist()})
    chosen = rows.select(owners[draw]).remove_columns([name]).flatten_indices()
    return datasets.concatenate_datasets([chosen, single], axis=1)
