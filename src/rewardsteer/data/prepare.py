"""Data preparation, from sources to a prepared folder: read, select, tokenize, write.

Rows are written to a spool file as they are read. A small index decides which rows are kept and in
which order. The rows are then tokenized in parallel, shard by shard. Nothing is truncated: a row
that is too long is dropped and counted. The folder appears only once it is complete.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from rewardsteer.data.config import DataConfig, SourceConfig
from rewardsteer.data.digests import template_hash, vocabulary_hash
from rewardsteer.data.responses import SourceRow
from rewardsteer.data.segments import segmented
from rewardsteer.data.selection import listed, select
from rewardsteer.data.shards import Shard, Work, write_shards
from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.data.sources.options import checked_options
from rewardsteer.data.sources.reading import Reading
from rewardsteer.data.spool import Spool
from rewardsteer.data.store import MANIFEST, SPLITS, Manifest, shard_name
from rewardsteer.data.template import resolve
from rewardsteer.errors import DataError, OutputError, RewardsteerError
from rewardsteer.outputs import claim_folder, reason, unfinished_folder, write_json
from rewardsteer.processors import processors
from rewardsteer.progress import stages
from rewardsteer.quiet import quiet_calls
from rewardsteer.records import Comparison

# With fewer rows, the check for the faster tokenizer takes longer than it saves.
_WORTH_A_TRIAL = 2000
# Share of rows dropped by max_length above which a note is made.
_MUCH = 0.01


@quiet_calls
def prepare(
    config: DataConfig, tokenizer: Any, out: Path, *, overwrite: bool = False, section: str = ""
) -> Manifest:
    """Prepare the sets of both splits: full, partial and SFT for pairs, or ``responses``.

    Args:
        config: what to prepare.
        tokenizer: of the model that will be trained.
        out: folder to create; an existing one must be empty unless ``overwrite``.
        section: of these settings where they are part of others (``data.``), for messages.

    Raises:
        ConfigError: unknown source or option.
        DataError: unreadable data, or a split without rows.
        OutputError: the folder is not empty, or cannot be written.
    """
    for source in config.sources:
        SOURCES.get(source.name)
    config = config.model_copy(update={"template": resolve(config.template, tokenizer)})
    existed = out.exists()
    claim_folder(out, overwrite=overwrite)
    try:
        with unfinished_folder(out) as held:
            manifest = _prepare(config, tokenizer, held, section)
            write_json(held / "data" / MANIFEST, manifest.model_dump(mode="json"))
            out.rmdir()
            (held / "data").rename(out)
    except RewardsteerError:
        if not existed:
            out.rmdir()
        raise
    except OSError as error:
        if isinstance(error, PermissionError) and not _of_output(error, out):
            raise DataError(
                f"{error.filename} cannot be read: {reason(error)}; change its permissions, or "
                "choose other data."
            ) from error
        raise OutputError(
            f"The prepared data cannot be written to {out}: {reason(error)}; free disk space "
            "or choose another folder."
        ) from error
    return manifest


def _of_output(error: OSError, out: Path) -> bool:
    """Whether an error names a path of the output folder, or no path."""
    place = str(error.filename or out)
    return place.startswith(str(out)) or f".{out.name}.unfinished-" in place


def _prepare(config: DataConfig, tokenizer: Any, held: Path, section: str) -> Manifest:
    """Write shards to ``held/data``; returns the manifest."""
    dropped: Counter[str] = Counter()
    notes: list[str] = []
    spool = Spool(held / "rows")
    with _progress("reading", None) as advance:
        read = _read(config, spool, dropped, notes, advance)
    spool.close()
    selections = select(spool, config, dropped)
    for split in SPLITS:
        (held / "data" / split).mkdir(parents=True)
    rows = sum(len(chosen.rows) for chosen in selections.values())
    work = Work(
        config, segmented(tokenizer) if rows >= _WORTH_A_TRIAL else tokenizer, spool.path,
        spool.begins, selections, sorted(spool.extras), held / "data", spool.steps, spool.kind,
        spool.writers,
    )
    with _progress("tokenizing", rows) as advance:
        shards = write_shards(work, config.num_proc or processors(), advance)
    long = [tokens for shard in shards for tokens in shard.long]
    for shard in shards:
        dropped.update(shard.dropped)
        if shard.fault:
            notes.append(f"The first row that was dropped for a fault: {shard.fault}")
    counts = {split: sum(one.kept for one in shards if one.split == split) for split in SPLITS}
    limit = f"{section}max_length"
    advice = _advice(config.max_length, sum(counts.values()), long, limit)
    for split in SPLITS:
        if not counts[split]:
            raise DataError(_nothing_left(split, dropped, advice, limit))
        _name_shards(held / "data" / split, [one for one in shards if one.split == split], work)
    if len(long) > _MUCH * read:
        notes.append(
            f"{len(long)} of {read} {work.noun} are longer than {limit}={config.max_length} "
            f"and were dropped{advice}."
        )
    return Manifest(
        fingerprint=_fingerprint(shards),
        counts={split: dict.fromkeys(work.sets, counts[split]) for split in SPLITS},
        read=read,
        repeated=sum(int((chosen.turns > 0).sum()) for chosen in selections.values()),
        dropped=dict(dropped),
        notes=list(dict.fromkeys(notes)),
        config=config.model_dump(mode="json", exclude={"num_proc"}),
        template=config.template.model_dump(mode="json"),
        template_hash=template_hash(config.template, tokenizer),
        tokenizer=_tokenizer(tokenizer),
        versions=_versions(),
    )


def _read(
    config: DataConfig, spool: Spool, dropped: Counter[str], notes: list[str],
    advance: Callable[[int], None],
) -> int:
    """Write the rows of all sources to the spool; returns their number, dropped rows included."""
    read = 0
    for number, source in enumerate(config.sources):
        reading = Reading(
            on_error=config.on_error, hub=source.hub, config=source.config,
            revision=source.revision, data_dir=source.data_dir,
            splits={str(ours): theirs for ours, theirs in source.splits.items()},
        )
        for split in SPLITS:
            begin, found = len(spool), 0
            try:
                for row in _load(source, split, reading):
                    found += 1
                    with reading.row():
                        _check(row)
                        if _is_equal_pair(row):
                            reading.skip("with chosen equal to rejected")
                        else:
                            spool.add(row)
                    advance(1)
            except NoSplitError:
                continue
            if not found:
                place = source.path or source.hub or "its published place"
                raise DataError(
                    f"The source {source.name} gave no comparisons from {place}"
                    f"{listed(reading.dropped)}."
                )
            spool.parts[number, split] = range(begin, len(spool))
        read += sum(reading.dropped.values())
        dropped.update(reading.dropped)
        notes += reading.notes
    return read + len(spool)


def _load(source: SourceConfig, split: str, reading: Reading) -> Iterator[SourceRow]:
    load = SOURCES.get(source.name)
    options = checked_options(source.name, load, source.options)
    return cast(Iterator[SourceRow], load(split, path=source.path, reading=reading, **options))


def _check(row: SourceRow) -> None:
    if not isinstance(row, Comparison):
        for value in (value for one in row.numbers.values() for value in one):
            if value is not None and not math.isfinite(value):
                raise DataError(f"{row.place or row.id}: expected finite numbers, got {value}.")
        return
    if not math.isfinite(row.margin) or row.margin < 0:
        raise DataError(
            f"{row.place or row.id}: expected a margin of 0 or more (how much better the chosen "
            f"response is), got {row.margin:g}."
        )
    if len(row.step_ends) != len(row.step_labels):
        raise DataError(
            f"{row.place or row.id}: expected a label for each step, got {len(row.step_ends)} "
            f"steps and {len(row.step_labels)} labels."
        )
    wrong = [label for label in row.step_labels if not 0 <= label <= 1]
    if wrong:
        raise DataError(
            f"{row.place or row.id}: expected labels of steps from 0 (incorrect) to 1 (correct), "
            f"got {wrong[0]:g}."
        )


def _is_equal_pair(row: SourceRow) -> bool:
    return isinstance(row, Comparison) and row.chosen == row.rejected and not row.single


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    done = 0
    with stages() as announce:
        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            announce(what, done, total)

        yield advance


def _advice(before: int, kept: int, long: list[int], name: str) -> str:
    """A sentence with the ``max_length``, by its full name, that keeps nearly all rows; "" where
    none is dropped."""
    if not long:
        return ""
    limit = 1 << before.bit_length()
    while sum(length > limit for length in long) > 0.05 * (kept + len(long)):
        limit *= 2
    return f"; {name}={limit} would keep {kept + sum(length <= limit for length in long)}"


def _nothing_left(split: str, dropped: Counter[str], advice: str, name: str) -> str:
    remedy = "give more data"
    if advice:
        remedy = f"raise {name} ({advice.removeprefix('; ')})"
    elif dropped["with chosen equal to rejected"]:
        remedy = "give pairs whose responses differ"
    return f"Nothing is left for the {split} split after dropping rows{listed(dropped)}; {remedy}."


def _name_shards(folder: Path, shards: list[Shard], work: Work) -> None:
    """Give the shard files their final names; files without rows are deleted."""
    full = [shard for shard in shards if shard.kept]
    for shard in shards:
        for name in work.sets:
            path = folder / f"{name}-{shard.number:05d}.parquet"
            if not shard.kept:
                path.unlink()
    for index, shard in enumerate(full):
        for name in work.sets:
            path = folder / f"{name}-{shard.number:05d}.parquet"
            path.rename(folder / shard_name(name, index, len(full)))


def _fingerprint(shards: list[Shard]) -> str:
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(shard.split.encode() + shard.digest)
    return digest.hexdigest()[:16]


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    return {
        "name": str(tokenizer.name_or_path), "size": len(tokenizer),
        "vocabulary": vocabulary_hash(tokenizer),
    }


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("rewardsteer", "tokenizers")}
