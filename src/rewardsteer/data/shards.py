"""Parallel tokenization: each worker takes rows of the spool and writes shards of the three sets.

A shard is a fixed range of a split's order, so the written files do not depend on the number of
processes. No process holds more than a few hundred rows.
"""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rewardsteer.data.config import DataConfig
from rewardsteer.data.render import render_prompt
from rewardsteer.data.response_sets import (
    PreparedResponses,
    encode_responses,
    response_tables,
)
from rewardsteer.data.responses import Responses, SourceRow
from rewardsteer.data.selection import Selection
from rewardsteer.data.sets import WRITERS, Prepared, encode_comparisons, set_tables
from rewardsteer.data.spool import read_spooled
from rewardsteer.data.step_tokens import step_lengths
from rewardsteer.data.store import RESPONSE_SETS, SETS
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

SHARD_ROWS = 8192
_BATCH = 512


class Work(NamedTuple):
    """Input that all shards share.

    Attributes:
        config: the settings with the template resolved.
        tokenizer: of the model, or one that gives the same ids.
        spool: the file of rows; ``begins``: the offset of each row.
        selections: the rows of each split.
        extras: names of the rows' further numbers.
        out: where the shards are written, as ``SPLIT/SET-NUMBER.parquet``.
        steps: whether any row has labelled steps.
        kind: record type of the rows.
        writers: whether any row names the models that wrote its responses.
    """

    config: DataConfig
    tokenizer: Any
    spool: Path
    begins: np.ndarray
    selections: dict[str, Selection]
    extras: Sequence[str]
    out: Path
    steps: bool = False
    kind: type[SourceRow] = Comparison
    writers: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets that are written."""
        return SETS if self.kind is Comparison else RESPONSE_SETS

    @property
    def noun(self) -> str:
        """The word for a row in messages."""
        return "comparisons" if self.kind is Comparison else "rows"


class Shard(NamedTuple):
    """The outcome of one written shard.

    Attributes:
        kept: number of rows written.
        dropped: ``{reason: rows}``.
        long: token counts of the rows that are longer than ``max_length``.
        digest: hash of the written rows.
        fault: the first error of a dropped row, or "".
    """

    split: str
    number: int
    kept: int
    dropped: Counter[str]
    long: list[int]
    digest: bytes
    fault: str


_work: Work | None = None
_stop: Any = None


def write_shards(work: Work, processes: int, progress: Callable[[int], None]) -> list[Shard]:
    """Tokenize and write all rows of all splits.

    Args:
        processes: number of worker processes; 1 works in this process.
        progress: called with the number of finished rows.

    Raises:
        DataError: a row cannot be written with the template or the tokenizer (names the row), or a
            worker was killed.
        OSError: the disk is full.
    """
    jobs = [
        (split, number) for split, chosen in work.selections.items()
        for number in range(max(1, -(-len(chosen.rows) // SHARD_ROWS)))
    ]
    # On other platforms a new process would import the user's script again.
    forks = "fork" in multiprocessing.get_all_start_methods()
    if min(processes, len(jobs)) <= 1 or not forks:
        return [_write(work, split, number, progress) for split, number in jobs]
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    found = []
    with ProcessPoolExecutor(
        min(processes, len(jobs)), context, initializer=_begin, initargs=(work, stop, os.getpid())
    ) as pool:
        try:
            for shard, (split, number) in zip(pool.map(_write_job, jobs), jobs, strict=True):
                found.append(shard)
                rows = len(work.selections[split].rows)
                progress(min(SHARD_ROWS, rows - number * SHARD_ROWS))
        except BrokenProcessPool as error:
            raise DataError(
                "A process that tokenized was killed, mostly for want of memory; give a smaller "
                "num_proc."
            ) from error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _begin(work: Work, stop: Any, parent: int) -> None:
    global _work, _stop
    _work, _stop = work, stop
    # The parent handles the interrupt and stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed, which the queues do not report."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _write_job(job: tuple[str, int]) -> Shard:
    assert _work is not None
    return _write(_work, *job, lambda rows: None)


def _write(work: Work, split: str, number: int, progress: Callable[[int], None]) -> Shard:
    import pyarrow.parquet as pq

    config, chosen = work.config, work.selections[split]
    end = min((number + 1) * SHARD_ROWS, len(chosen.rows))
    dropped: Counter[str] = Counter()
    long: list[int] = []
    digest, kept, faults = hashlib.sha256(), 0, [""]
    with contextlib.ExitStack() as open_files:
        writers: dict[str, Any] = {}
        for begin in range(number * SHARD_ROWS, max(end, 1), _BATCH):
            if _stop is not None and _stop.is_set():
                break
            places = range(begin, min(begin + _BATCH, end))
            rows = [
                row for row in _prepared(_rows(work, chosen, places), work, dropped, faults)
                if _fits(row, config.max_length, dropped, long)
            ]
            tables = _tables(rows, work)
            _digest(digest, tables)
            for name, table in tables.items():
                if name not in writers:
                    path = work.out / split / f"{name}-{number:05d}.parquet"
                    writers[name] = open_files.enter_context(pq.ParquetWriter(path, table.schema))
                if rows:
                    writers[name].write_table(table)
            kept += len(rows)
            progress(len(places))
    return Shard(split, number, kept, dropped, long, digest.digest(), faults[0])


def _rows(work: Work, chosen: Selection, places: Sequence[int]) -> list[SourceRow]:
    numbers = [int(chosen.rows[place]) for place in places]
    rows = read_spooled(work.spool, work.begins, numbers, work.kind)
    return [
        row.model_copy(update={"id": chosen.new_id(place, row.id, work.config)})
        for place, row in zip(places, rows, strict=True)
    ]


def _prepared(
    rows: Sequence[SourceRow], work: Work, dropped: Counter[str], faults: list[str]
) -> Iterator[Prepared | PreparedResponses]:
    """Render and tokenize the rows all at once, or one by one where one of them is invalid."""
    try:
        yield from _encoded(rows, work)
        return
    except Exception:  # tokenizers raise plain exceptions
        if len(rows) == 1 and work.config.on_error == "raise":
            raise
    for row in rows:
        try:
            yield from _encoded([row], work)
        except Exception as error:
            said = str(error) if isinstance(error, DataError) else (
                f"it cannot be written with the tokenizer {work.tokenizer.name_or_path}: {error}"
            )
            if work.config.on_error == "raise":
                raise DataError(f"{row.place or row.id}: {said}") from error
            dropped["with a fault"] += 1
            faults[0] = faults[0] or f"{row.place or row.id}: {said}"


def _encoded(rows: Sequence[Any], work: Work) -> list[Prepared] | list[PreparedResponses]:
    template, tokenizer = work.config.template, work.tokenizer
    if not rows:
        return []
    prompts = [render_prompt(one.prompt, template, tokenizer, tools=one.tools) for one in rows]
    if work.kind is Responses:
        found = encode_responses(rows, template, tokenizer)
        return list(map(PreparedResponses, rows, found, prompts))
    pairs = encode_comparisons(rows, template, tokenizer)
    return [
        Prepared(
            row, pair, prompt, step_lengths(row.chosen, row.step_ends, pair.chosen_ids, tokenizer)
        )
        for row, pair, prompt in zip(rows, pairs, prompts, strict=True)
    ]


def _tables(rows: Sequence[Any], work: Work) -> dict[str, Any]:
    config = work.config
    if work.kind is Responses:
        return response_tables(rows, work.extras)
    return set_tables(
        rows, start=config.prefix_start, count=config.prefix_count, seed=config.seed,
        extras=work.extras, steps=work.steps, writers=work.writers,
    )


def _fits(
    row: Prepared | PreparedResponses, limit: int, dropped: Counter[str], long: list[int]
) -> bool:
    prompt_ids, responses = row.prompt_ids, row.response_ids
    total = len(prompt_ids) + max(map(len, responses))
    if total <= limit and len(prompt_ids) < limit:
        if all(responses):
            return True
        dropped["with an empty response"] += 1
        return False
    prompt = len(prompt_ids) >= limit
    dropped[f"{'with a prompt ' if prompt else ''}longer than max_length"] += 1
    long.append(total)
    return False


def _digest(digest: Any, tables: dict[str, Any]) -> None:
    """Add the rows of all sets but the SFT set, which only repeats them. Columns that name the
    writers of responses are left out, because training does not use them."""
    flat = {name: table.flatten() for name, table in tables.items() if name != "sft"}
    columns = {f"{name}/{column}": flat[name][column].combine_chunks()
               for name in flat for column in flat[name].column_names
               if column not in WRITERS
               and (name != "partial" or column.endswith(("lengths", "step_labels")))}
    for name, column in columns.items():
        digest.update(name.encode())
        _digest_column(digest, column)


def _digest_column(digest: Any, column: Any) -> None:
    import pyarrow as pa

    if pa.types.is_list(column.type):
        digest.update(column.value_lengths().to_numpy(zero_copy_only=False).tobytes())
        _digest_column(digest, column.flatten())
    elif pa.types.is_string(column.type):
        for text in column.to_pylist():
            digest.update(text.encode() + b"\0")
    else:
        digest.update(column.to_numpy(zero_copy_only=False).tobytes())
