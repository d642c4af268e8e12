"""What reaches the terminal of a command: its own lines, and nothing of other libraries but errors.

Warnings and lines of diagnosis are collected and, once the command has an output folder, written to
a log file there.
"""

import logging
import os
import sys
from collections import deque
from pathlib import Path

LOG = "log.txt"
# Libraries that print through handlers of their own, on standard error or standard output.
_TALKATIVE = ("transformers", "datasets", "huggingface_hub", "DeepSpeed")
_OURS = "rewardsteer"


class _Terminal(logging.Handler):
    """Writes our messages and everybody's errors to what standard error is at that moment: a
    progress bar replaces it to print above itself."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.ours = level

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        ours = record.name.split(".")[0] == _OURS
        if record.levelno >= (self.ours if ours else logging.ERROR):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


class _Diagnosis(logging.Handler):
    """Keeps all messages until there is a file for them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        # A server runs for weeks and has no file: the oldest go.
        self._waiting: deque[str] = deque(maxlen=1000)
        self._place: Path | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        self._waiting.append(self.format(record) + "\n")
        if self._place is not None:
            self.keep(self._place)

    def keep(self, place: Path) -> None:
        """Append what waits, and from now on everything, to a file."""
        self._place = place
        lines = list(self._waiting)
        self._waiting.clear()
        try:
            with place.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)
        except OSError:
            # A full disk is reported where results are written, not from within a log message.
            self._place = None


_DIAGNOSIS = _Diagnosis()


def quiet_libraries(level: int = logging.INFO) -> None:
    """Keep other libraries' warnings and progress bars off the terminal; their errors and our own
    messages from ``level`` on still appear. `keep_log` says where the rest goes."""
    # Before transformers is imported: its quantisation backends log while they are.
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Terminal | _Diagnosis)]:
        root.removeHandler(handler)
    root.addHandler(_Terminal(level))
    root.addHandler(_DIAGNOSIS)
    logging.getLogger(_OURS).setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    deepspeed = logging.getLogger("DeepSpeed")
    if _divert not in deepspeed.filters:
        deepspeed.addFilter(_divert)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

    import datasets  # noqa: F401  (has handlers of its own from its import on)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in _TALKATIVE:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


def _divert(record: logging.LogRecord) -> bool:
    """Send a record of a logger that does not propagate to the root's handlers instead."""
    if not logging.getLogger(record.name).propagate:
        logging.getLogger().handle(record)
        return False
    return True


def keep_log(folder: Path) -> None:
    """Write warnings and lines of diagnosis, those since the start included, to ``log.txt`` in an
    output folder of a command; a Python program that set up nothing gets no file."""
    if _DIAGNOSIS in logging.getLogger().handlers:
        _DIAGNOSIS.keep(folder / LOG)
