"""Checkpoints within a phase: atomic, checked against the engine, and exact to the log line.

    checkpoint-N/            what the Trainer writes (weights, optimiser, schedule, random states)
      progress.json          engine, processes, and how long metrics.jsonl was
      interval_R.json        sums of process R since the last log line
    .saving/                 a checkpoint that is being written, or was interrupted
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from rewardsteer.errors import CheckpointError, OutputError
from rewardsteer.outputs import read_json, sync, write_json

logger = logging.getLogger(__name__)

SAVING = ".saving"
PROGRESS = "progress.json"


def engine(accelerator: Accelerator) -> str:
    """The engine that distributes the work: ``single``, ``ddp``, ``fsdp2``, ``zero2``, …"""
    kind = accelerator.distributed_type.value.lower()
    if kind == "deepspeed":
        return f"zero{accelerator.state.deepspeed_plugin.zero_stage}"
    if kind == "fsdp":
        return f"fsdp{accelerator.state.fsdp_plugin.fsdp_version}"
    return "single" if accelerator.num_processes == 1 else "ddp"


@contextmanager
def named_failure(what: str, kept: Path, left: str | None = None) -> Iterator[None]:
    """Turn a failure to write into one sentence that says what is left.

    Args:
        what: is being written.
        kept: a folder on the same disk.
        left: what is kept, as a clause; None: the newest checkpoint in ``kept``.

    Raises:
        OutputError: the disk is full, a quota is reached, the place went away.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        last = max(whole_checkpoints(kept), key=step_of, default=None)
        left = left or (
            "no earlier checkpoint is there" if last is None else f"{last} is kept"
        )
        # With a full disk, torch only says that a file ended early.
        free = shutil.disk_usage(kept).free / 2**20
        raise OutputError(
            f"{what} cannot be written ({error}; {free:,.0f} MiB are free there); {left}. Make "
            "room, then go on with resume=True (--resume)."
        ) from error


def begin(out: Path, accelerator: Accelerator) -> Path:
    """An empty folder to write a checkpoint into; leftovers of an interrupted one are deleted."""
    place = out / SAVING
    if accelerator.is_main_process:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    accelerator.wait_for_everyone()
    return place


def publish(written: Path, place: Path) -> None:
    """Flush a written checkpoint to disk and move it to its final name."""
    for root, _, files in os.walk(written):
        for name in [*files, "."]:
            sync(Path(root) / name)
    _remove(place)
    written.rename(place)
    sync(place.parent)


def keep_newest(out: Path, best: str | None, count: int | None) -> None:
    """Delete all whole checkpoints but the newest ``count`` (None: all are kept) and the best."""
    found = sorted(whole_checkpoints(out), key=step_of)
    for folder in found[: -count] if count else []:
        if best is None or folder.resolve() != Path(best).resolve():
            _remove(folder)


def _remove(folder: Path) -> None:
    """Delete a folder without leaving it half deleted under its name."""
    if folder.exists():
        gone = folder.with_name(f".old-{folder.name}")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def step_of(folder: Path) -> int:
    """Number of updates at a checkpoint."""
    return int(folder.name.rpartition("-")[2])


def whole_checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints; only `publish` makes their names."""
    return [
        folder for folder in out.glob("checkpoint-*") if (folder / "trainer_state.json").exists()
    ]


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint to resume from.

    An incomplete one is skipped and named in the log. One of the phase's last update is skipped as
    well: after it nothing is left but the end of the phase, which would be repeated.
    """
    for folder in (out / SAVING).glob("checkpoint-*"):
        logger.warning("ignoring the half-written checkpoint %s", folder)
    whole = whole_checkpoints(out)
    for folder in set(out.glob("checkpoint-*")) - set(whole):
        logger.warning("ignoring the half-written checkpoint %s", folder)
    found = []
    for folder in whole:
        state = read_json(folder / "trainer_state.json")
        if state["global_step"] < state["max_steps"]:
            found.append(folder)
    return max(found, key=step_of, default=None)


def write_progress(folder: Path, accelerator: Accelerator, log: Path, interval: Any) -> None:
    """Add the state that the Trainer does not save to a checkpoint; every process calls this."""
    write_json(folder / f"interval_{accelerator.process_index}.json", interval)
    if accelerator.is_main_process:
        length = 0
        if log.exists():
            sync(log)
            length = log.stat().st_size
        write_json(folder / PROGRESS, {
            "engine": engine(accelerator), "processes": accelerator.num_processes,
            "log_bytes": length,
        })


def read_interval(folder: Path, process: int) -> Any:
    """The sums of one of the processes that wrote a checkpoint."""
    return read_json(folder / f"interval_{process}.json")


def read_intervals(folder: Path, accelerator: Accelerator) -> list[Any]:
    """The sums that this process continues from: its own, and a share of those of processes that no
    longer exist."""
    written = read_json(folder / PROGRESS)["processes"]
    mine = range(accelerator.process_index, written, accelerator.num_processes)
    return [read_interval(folder, process) for process in mine]


def check_engine(folder: Path, accelerator: Accelerator) -> None:
    """Refuse a checkpoint that this engine cannot resume from.

    Raises:
        CheckpointError: another engine wrote it, or DeepSpeed with another number of processes.
    """
    written = read_json(folder / PROGRESS)
    before, now = written["engine"], engine(accelerator)
    plain = {"single", "ddp"}
    same = before == now or {before, now} <= plain
    moved = written["processes"] != accelerator.num_processes
    if not same or (moved and now.startswith("zero")):
        raise CheckpointError(
            f"The checkpoint {folder} was written by {before} on {written['processes']} processes, "
            f"and {now} on {accelerator.num_processes} cannot go on from it; resume with the same, "
            "or delete the checkpoints of this phase to start it over."
        )


def rewind_log(log: Path, phase: str, checkpoint: Path | None) -> None:
    """Remove log lines that will be written again: all after the checkpoint, or the whole phase. An
    incomplete last line is removed too.
    """
    if not log.exists():
        return
    if checkpoint is not None:
        keep = int(read_json(checkpoint / PROGRESS)["log_bytes"])
    else:
        keep = 0
        for line in log.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line).get("phase") == phase:
                break
            keep += len(line)
    if keep < log.stat().st_size:
        os.truncate(log, keep)
