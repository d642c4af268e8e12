"""How files of rows are opened, compressed or not."""

import gzip
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

Row = dict[str, Any]
Guard = Callable[[], AbstractContextManager[None]]
# Errors that reading a file may raise, also a damaged .gz.
READ_FAILURES = (OSError, EOFError, zlib.error)


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressing ``.gz``; may raise `READ_FAILURES`."""
    opener: Any = gzip.open if file.name.endswith(".gz") else open
    return cast(IO[bytes], opener(file, "rb"))
