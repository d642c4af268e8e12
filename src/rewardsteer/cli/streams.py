"""Standard input and output instead of files: ``-``, ``/dev/stdin`` and ``/dev/stdout``."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INPUT, _OUTPUT = ("-", "/dev/stdin"), ("-", "/dev/stdout")
# Prefix of the temporary folder for results that go to standard output at the end.
_HELD = "rewardsteer-stdout-"


def is_standard_output(path: Path) -> bool:
    """Whether results go to standard output."""
    return str(path) in _OUTPUT


def place_name(path: Path) -> str:
    """The name of an output in messages."""
    held = path.parent.name.startswith(_HELD)
    return "standard output" if held or is_standard_output(path) else str(path)


@contextmanager
def readable(path: Path, suffix: str = ".jsonl") -> Iterator[Path]:
    """The file itself, or a copy of standard input, because files are read several times."""
    if str(path) not in _INPUT:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"stdin{suffix}"
        with place.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield place


@contextmanager
def writable(path: Path, suffix: str = ".jsonl") -> Iterator[Path]:
    """The file itself, or a temporary file that is copied to standard output at the end."""
    if not is_standard_output(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=_HELD) as folder:
        place = Path(folder) / f"stdout{suffix}"
        yield place
        sys.stdout.write(place.read_text(encoding="utf-8"))
