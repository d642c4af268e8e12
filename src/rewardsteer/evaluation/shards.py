"""Results of a long run in shards, which are joined at the end.

    OUTPUT.partial/run.json        the run's task: input, model, settings
    OUTPUT.partial/00000000.jsonl  the first shard of rows, and so on
    OUTPUT                         all rows, in order
    OUTPUT.run.json                the task of the finished run

Files are written atomically. A shard's index determines its rows, so a shard that is made twice
(after a kill, by a second machine) is the same file and no row is repeated.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rewardsteer.errors import DataError, OutputError
from rewardsteer.outputs import read_json, reason, remedy, write_json, write_text

Row = dict[str, Any]
_RUN = "run.json"


class Shards:
    """The unfinished output of one run.

    Args:
        output: the output file: Parquet by its ending, else JSONL.
        task: all that determines the rows' values; a run with another task cannot be resumed.
        step: rows per shard.
        resume: go on with an interrupted run.
        overwrite: replace an existing output.

    Raises:
        OutputError: the output or an interrupted run exists and no flag was given.
        DataError: the interrupted run had another task.
    """

    def __init__(
        self, output: Path, task: Mapping[str, Any], *, count: int, step: int,
        resume: bool = False, overwrite: bool = False,
    ) -> None:
        check_output(output, resume=resume, overwrite=overwrite)
        self.output, self.count, self.step = output, count, step
        self.folder = partial_folder(output)
        self._record = output.with_name(f"{output.name}.{_RUN}")
        task = {**task, "rows": count, "shard_rows": step}
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        # A run may have been killed after the output was complete.
        self.finished = resume and output.exists()
        begun = self.folder / _RUN
        if self.finished and not begun.exists():
            begun = self._record
            if not begun.exists():
                raise OutputError(
                    f"The output {output} exists and nothing says what made it; choose another or "
                    "pass overwrite=True (--overwrite)."
                )
        if begun.exists() and resume:
            self._compare(read_json(begun), task)
        if not self.finished:
            self._guarded(lambda: write_json(self.folder / _RUN, task))

    def _compare(self, before: Any, task: Mapping[str, Any]) -> None:
        known = before if isinstance(before, dict) else {}
        changed = sorted(name for name, value in task.items() if known.get(name) != value)
        if changed:
            raise DataError(
                f"The scores in {self.output} were begun with other {', '.join(changed)}; resume "
                "with the same input, reward model, goal and options, or pass overwrite=True "
                "(--overwrite) to begin again."
            )

    def missing(self) -> list[int]:
        """Indices of the missing shards, in order."""
        if self.finished:
            return []
        return [number for number in range(self._shards) if not self.place(number).exists()]

    def rows_in(self, shard: int) -> int:
        """The number of rows of a shard."""
        return min(self.step, self.count - shard * self.step)

    def write(self, shard: int, rows: Iterator[Row] | Sequence[Row]) -> None:
        """Write a shard to disk atomically.

        Raises:
            OutputError: the disk is full or fails; finished shards are kept.
        """
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._guarded(lambda: write_text(self.place(shard), lines))

    def finish(self, schema: Any = None) -> Iterator[Row]:
        """Join the shards into the output, and yield its rows meanwhile.

        Raises:
            OutputError: a shard is missing or damaged, or the disk is full; the shards are kept.
        """
        if not self.finished:
            yield from self._join(schema)
        if (self.folder / _RUN).exists():
            (self.folder / _RUN).replace(self._record)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _join(self, schema: Any) -> Iterator[Row]:
        place = self.folder / "whole"
        write = _parquet if self.output.suffix == ".parquet" else _jsonl
        try:
            with place.open("wb") as stream:
                yield from write(stream, self._read(), schema)
                stream.flush()
                os.fsync(stream.fileno())
            place.replace(self.output)
        except OutputError:
            raise
        except OSError as error:
            place.unlink(missing_ok=True)
            raise self._full(error) from error

    def _read(self) -> Iterator[tuple[bytes, list[Row]]]:
        for shard in range(self._shards):
            place = self.place(shard)
            try:
                content = place.read_bytes()
                rows = [json.loads(line) for line in content.splitlines()]
            except (OSError, ValueError) as error:
                raise OutputError(
                    f"The shard {place} cannot be read ({error}); delete it if it is there, and "
                    "pass resume=True (--resume) to make it again."
                ) from error
            if len(rows) != self.rows_in(shard):
                raise OutputError(
                    f"The shard {place} holds {len(rows)} rows, expected {self.rows_in(shard)}; "
                    "delete it and pass resume=True (--resume) to make it again."
                )
            yield content, rows

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> OutputError:
        kept = self._shards - len(self.missing())
        # An `OutputError` has a message of its own; the system's error is its cause.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return OutputError(
            f"{self.output} cannot be written: {reason(cause)}. {kept} of {self._shards} shards "
            f"are done and kept in {self.folder}; {remedy(cause)} and pass resume=True (--resume) "
            "to go on."
        )

    @property
    def _shards(self) -> int:
        return -(-self.count // self.step)

    def place(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{shard:08d}.jsonl"


def partial_folder(output: Path) -> Path:
    """The folder of an unfinished output."""
    return output.with_name(output.name + ".partial")


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Check before any work that the output may be written.

    Raises:
        OutputError: the output or an interrupted run of it exists and no flag was given.
    """
    if output.is_dir():
        raise OutputError(f"The output {output} is a folder, a file was expected; choose another.")
    if output.exists() and not (resume or overwrite):
        raise OutputError(
            f"The output {output} exists; choose another or pass overwrite=True (--overwrite)."
        )
    partial = partial_folder(output)
    if partial.exists() and not (resume or overwrite):
        raise OutputError(
            f"{partial} holds rows of an interrupted run; pass resume=True (--resume) to go "
            "on with it or overwrite=True (--overwrite) to start over."
        )


def _jsonl(
    stream: IO[bytes], shards: Iterator[tuple[bytes, list[Row]]], schema: None
) -> Iterator[Row]:
    for content, rows in shards:
        stream.write(content)
        yield from rows


def _parquet(
    stream: IO[bytes], shards: Iterator[tuple[bytes, list[Row]]], schema: Any
) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(stream, schema) as writer:
        for _, rows in shards:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            yield from rows
