"""Locks on folders, so that two processes do not write to the same one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Descriptors of locked folders. Forks close theirs: one that outlives a killed process would hold
# the lock on.
_LOCKED: set[int] = set()


def _release() -> None:
    while _LOCKED:
        os.close(_LOCKED.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release)


@contextmanager
def lock_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which the system releases when the process ends.

    Args:
        shared: others may hold a shared one at the same time.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be read, or the system has no locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError("this system has no such locks") from error

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        _LOCKED.add(handle)
        yield
    finally:
        _LOCKED.discard(handle)
        os.close(handle)
