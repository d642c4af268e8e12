"""Output folders and files that are never half-written.

Small files are written atomically (temporary name, fsync, rename). Long results are appended line
by line; on resume an incomplete last line, left by a killed process, is cut off.
"""

import errno
import glob
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardsteer.errors import DataError, OutputError
from rewardsteer.locks import lock_folder

# Half of a surrogate pair can only be written as an escape.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def claim_folder(
    path: Path, *, resume: bool | None = None, overwrite: bool = False
) -> Path:
    """Create an output folder; refuse one that is not empty.

    Args:
        path: the folder.
        resume: accept the existing contents and continue from them; None where the caller has no
            --resume, so that the message does not recommend it.
        overwrite: delete the existing contents first.

    Raises:
        OutputError: the folder is not empty and neither flag was given, or cannot be created.
    """
    check_folder(path, resume=resume, overwrite=overwrite)
    if path.exists() and any(path.iterdir()) and not resume:
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder {path} cannot be made: {error}.") from error
    return path


@contextmanager
def claimed_folder(
    path: Path, *, resume: bool | None = None, overwrite: bool = False
) -> Iterator[None]:
    """`claim_folder`, and keep other processes from claiming the folder meanwhile, which two jobs
    of a queue may do that resume one run.

    Raises:
        OutputError: see `claim_folder`.
    """
    claim_folder(path, resume=resume, overwrite=overwrite)
    with ExitStack() as locked:
        try:
            locked.enter_context(lock_folder(path))
        except BlockingIOError as error:
            raise OutputError(_busy(path)) from error
        except OSError:
            pass  # Some file systems have no locks.
        yield


def _busy(path: Path) -> str:
    return (
        f"Another process is writing to the output folder {path}; wait until it has ended, or "
        "choose another folder."
    )


def check_folder(
    path: Path, *, resume: bool | None = None, overwrite: bool = False
) -> None:
    """Refuse what `claim_folder` would refuse, without creating or deleting anything.

    Raises:
        OutputError: the folder is not empty and neither flag was given, another process is writing
            to it (see `claimed_folder`), or it is a file.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"The output {path} is a file, a folder was expected; choose another.")
    if path.exists() and any(path.iterdir()) and not (resume or overwrite):
        going_on = "resume=True (--resume) to go on from it or " if resume is not None else ""
        raise OutputError(
            f"The output folder {path} is not empty; choose another, or pass {going_on}"
            "overwrite=True (--overwrite) to replace it."
        )
    if path.exists():
        try:
            with lock_folder(path, shared=True):
                pass
        except BlockingIOError as error:
            raise OutputError(_busy(path)) from error
        except OSError:
            pass  # No permission, which the caller reports, or no locks.
    places = (Path.home(), Path.cwd(), Path("/"))
    if overwrite and not resume and path.resolve() in [one.resolve() for one in places]:
        raise OutputError(f"Refusing to delete {path} to replace it; choose a subfolder.")


def reason(error: OSError) -> str:
    """The operating system's message of an error, without a full stop."""
    return (error.strerror or str(error)).rstrip(".")


def remedy(error: OSError) -> str:
    """Advice about an error, for messages."""
    if error.errno == errno.EROFS or error.errno in (errno.EACCES, errno.EPERM):
        return "make the folder writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free disk space"
    return "correct it"


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; raises `OutputError` if that fails."""
    # Files of the module tempfile would be readable by their owner only.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"The file {path} cannot be written: {reason(error)}; {remedy(error)}."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically; NaN is refused, because JSON has no NaN."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def given(row: Mapping[str, Any], name: str, default: Any = "") -> Any:
    """The value of an optional field, or the default where it is missing or null (tables hold null
    for a column that a row lacks)."""
    value = row.get(name)
    return default if value is None else value


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises `ValueError` for any error, including too deep nesting and
    halves of surrogate pairs."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"half of a surrogate pair, {half}, is no text") from error
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file; raises a `DataError` that names the position of an error."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error}.") from error
    except ValueError as error:
        raise DataError(f"The file {path} is not valid JSON: {error}.") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number, object)``; raises a `DataError` that names an invalid line."""
    try:
        # Windows editors write a byte order mark before the first line.
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: not valid JSON ({error}).") from error
                if not isinstance(row, dict):
                    raise DataError(
                        f"{path}, line {number}: expected a JSON object, got {type(row).__name__}."
                    )
                yield number, row
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file {path} is not UTF-8 text ({error}); save it as UTF-8."
        ) from error


def repair_jsonl(path: Path) -> int:
    """Cut off an incomplete last line and return the number of complete lines."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    return content[:whole].count(b"\n")


def append_jsonl(path: Path, lines: list[str]) -> None:
    """Append encoded JSON lines and flush them to disk; raises `OutputError` if that fails (an
    incomplete line is cut off on resume)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(
            f"The file {path} cannot be written: {reason(error)}. The lines before are kept; "
            f"{remedy(error)} and pass resume=True (--resume) to go on."
        ) from error


def file_name(label: str) -> str:
    """The JSONL file name for a label: characters other than letters and digits become ``_``."""
    kept = (letter if letter.isalnum() or letter in "-_.=" else "_" for letter in label)
    return "".join(kept) + ".jsonl"


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A hidden working folder beside an output, deleted afterwards. Folders left beside the same
    output by killed processes are deleted first.

    Raises:
        OSError: the folder cannot be created.
    """
    prefix = f".{path.name}.unfinished-"
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError), lock_folder(left):
            shutil.rmtree(left, ignore_errors=True)
    while True:
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=prefix, ignore_cleanup_errors=True
        ) as name:
            held = Path(name)
            with ExitStack() as locked:
                # Some file systems have no locks; what is left there stays.
                with suppress(OSError):
                    locked.enter_context(lock_folder(held))
                # Between the two lines above, another process may have taken it for a leftover.
                if held.exists():
                    yield held
                    return


def replace_folder(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; an existing folder is deleted after the new one is in place."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
