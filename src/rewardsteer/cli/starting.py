"""Steps of commands before torch is imported: fast checks, and one line about what loads."""

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from rewardsteer.addresses import is_address
from rewardsteer.errors import CheckpointError, MismatchError, OutputError
from rewardsteer.processors import cores, processors

_ABSENT = "there is none; check the path, or give a name on the Hugging Face hub"


def prepare_torch() -> None:
    """Set the environment variables that torch reads when it is imported; existing values are kept.

    Warnings of its C++ code, which no logging of Python's sees, stay off the terminal. Threads that
    wait for a matrix product to end sleep instead of spinning. A spinning thread blocks the core
    that the awaited thread needs; on a busy machine this slows training tenfold.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if processors() < cores():
        # In a container torch sees all cores of the machine and would start a thread on each.
        os.environ.setdefault("OMP_NUM_THREADS", str(processors()))


def counted(number: int, noun: str) -> str:
    """``"1 row"``, ``"2 rows"``, ``"1,204 rows"``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(text: str) -> None:
    """Print a line on standard error, with a launcher only in the first process; not for ""."""
    if text and os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=True)


def loading(*names: object) -> None:
    """Print what is being loaded, before the imports that take seconds. From here on, other
    libraries' messages stay off the terminal."""
    shown = [str(name) for name in names if name]
    say(f"Loading {' and '.join(dict.fromkeys(shown))} …")

    from rewardsteer.quiet import quiet_libraries

    quiet_libraries()


def check_model(*names: str | Path | None) -> None:
    """Refuse names that can only be local folders and do not exist, and unreadable folders.

    A name of two parts may be a hub name, unless its first part is a local folder.

    Raises:
        CheckpointError: no such folder, or it is not readable.
    """
    _check_readable(names)
    for name in names:
        if name is not None and not Path(name).exists() and _is_local(str(name)):
            raise CheckpointError(f"Expected a model folder at {name}, {_ABSENT}.")


def check_reward_model(*names: str | Path | None) -> None:
    """As `check_model`, but a hub name needs an owner, and an address is only checked later.

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
    """Refuse model folders that are unreadable or hold unreadable files, which other libraries
    report as missing."""
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
    """Refuse an address where a reward model must give rewards of tokens.

    Args:
        name: given by the user; an address given as a path lacks one slash.
        purpose: the part that needs tokens, a plural noun for the message.

    Raises:
        MismatchError: the name is an address.
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
    """Refuse an output folder that is not empty (see `rewardsteer.outputs.check_folder`) or not
    writable; raises `OutputError`."""
    from rewardsteer.outputs import check_folder

    check_folder(out, resume=resume, overwrite=overwrite)
    check_writable(out)


def check_writable(*places: Path | None) -> None:
    """Refuse outputs in folders that are not writable, before the work.

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
