"""What commands do before torch is imported: cheap checks, and one line that says what loads."""

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from rewardsteer.addresses import is_address
from rewardsteer.errors import CheckpointError, MismatchError, OutputError
from rewardsteer.processors import cores, processors

_ABSENT = "there is none; check the path, or give a name on the Hugging Face hub"


def share_cores() -> None:
    """Settings of OpenMP for a machine with other work on it; what is set already stays.

    Threads that wait at the end of a product sleep instead of spinning. A spinning thread keeps the
    core that the thread it waits for needs: beside other work, training slows tenfold.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if processors() < cores():
        # A container's share of the machine; torch sees all cores and would start a thread on each.
        os.environ.setdefault("OMP_NUM_THREADS", str(processors()))


def counted(number: int, noun: str) -> str:
    """``"1 row"``, ``"2 rows"``, ``"1,204 rows"``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(text: str) -> None:
    """A line on standard error; under a launcher, in the first process alone; none of ""."""
    if text and os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=True)


def loading(*names: object) -> None:
    """Say what is being loaded, before the imports that take seconds; other libraries' messages are
    turned down from here on."""
    shown = [str(name) for name in names if name]
    say(f"Loading {' and '.join(dict.fromkeys(shown))} …")

    from rewardsteer.quiet import quiet_libraries

    quiet_libraries()


def check_model(*names: str | Path | None) -> None:
    """Refuse names that can only be local folders and are none, and folders that cannot be read.

    A name of two parts may be one on the hub, unless its first part is a folder here.

    Raises:
        CheckpointError: no such folder, or it is not readable.
    """
    _check_readable(names)
    for name in names:
        if name is not None and not Path(name).exists() and _is_local(str(name)):
            raise CheckpointError(f"Expected a model folder at {name}, {_ABSENT}.")


def check_reward_model(*names: str | Path | None) -> None:
    """As `check_model`; a name on the hub has an owner, and an address is asked later.

    Raises:
        CheckpointError: no such folder, or it is not readable.
    """
    _check_readable(one for one in names if not is_address(one))
    for name in names:
        if name is None or is_address(name) or Path(name).exists():
            continue
        if "/" not in str(name) or _is_local(str(name)):
            raise CheckpointError(f"Expected a reward model folder at {name}, {_ABSENT}.")


def _check_readable(names: Iterable[str | Path | None]) -> None:
    """Refuse folders of models that are not readable, or hold files that are not: libraries that
    load them say of these that they do not exist."""
    for folder in [Path(name) for name in names if name is not None]:
        if not folder.is_dir():
            continue
        places = [folder, *folder.iterdir()] if _readable(folder) else [folder]
        for place in places:
            if not _readable(place):
                raise CheckpointError(
                    f"The model {folder} cannot be read: there is no permission to read {place}; "
                    "change its permissions, or choose another."
                )


def _readable(place: Path) -> bool:
    return os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0))


def refuse_address(name: str | Path, purpose: str) -> None:
    """Refuse an address where a reward model has to be read token by token.

    Args:
        name: given by the user; as a path it has lost a slash.
        purpose: what needs the tokens, in the plural.

    Raises:
        MismatchError: it is an address.
    """
    if str(name).startswith(("http:/", "https:/")):
        raise MismatchError(
            f"{purpose} need hidden states or rewards per token, which no address gives; give the "
            "reward model's folder in place of its address."
        )


def _is_local(name: str) -> bool:
    parts = name.split("/")
    if name.startswith((".", "/", "~")) or len(parts) > 2:
        return True
    return len(parts) == 2 and Path(parts[0]).is_dir()


def check_out(out: Path, *, resume: bool | None = None, overwrite: bool) -> None:
    """Refuse an output folder that holds something, see `rewardsteer.outputs.check_folder`, or that
    cannot be written to; raises `OutputError`."""
    from rewardsteer.outputs import check_folder

    check_folder(out, resume=resume, overwrite=overwrite)
    check_writable(out)


def check_writable(*places: Path | None) -> None:
    """Refuse outputs in folders that cannot be written to, before the work.

    Raises:
        OutputError: names the folder.
    """
    for place in places:
        if place is None:
            continue
        folder = place.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise OutputError(f"The output {place} cannot be made: {folder} is a file.")
        if not os.access(folder, os.W_OK):
            raise OutputError(
                f"The output {place} cannot be written: {folder} is read-only; choose another "
                "place."
            )
