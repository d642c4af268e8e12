"""Handlers of messages: on the terminal, and in the log file of an output folder."""

import logging
import sys
from collections import deque
from pathlib import Path

OURS = "rewardsteer"


class Terminal(logging.Handler):
    """Writes rewardsteer's messages and all errors to the current standard error, which a progress
    bar replaces to print above itself."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.ours = level

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.split(".")[0] == OURS
        if record.levelno >= (self.ours if ours else logging.ERROR):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


class Diagnosis(logging.Handler):
    """Collects all messages until there is a log file."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        # A server runs for weeks without a file, so the oldest messages are dropped.
        self._waiting: deque[str] = deque(maxlen=1000)
        self._place: Path | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(self.format(record) + "\n")
        if self._place is not None:
            self.keep(self._place)

    def keep(self, place: Path) -> None:
        """Append the collected messages, and all later ones, to a file."""
        self._place = place
        lines = list(self._waiting)
        self._waiting.clear()
        try:
            with place.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)
        except OSError:
            # A full disk is reported when results are written, not by the logging.
            self._place = None
