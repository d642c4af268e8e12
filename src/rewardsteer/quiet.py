"""What reaches the terminal: our own lines, and nothing of other libraries but errors.

In a command, for the whole process: warnings and lines of diagnosis are collected and, once the
command has an output folder, written to a log file there. In a Python program, which owns its
logging, only while a call of ours works (`quiet_calls`).
"""

import contextlib
import functools
import inspect
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

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


def quiet_calls(decorated: Decorated) -> Decorated:
    """Keep other libraries' warnings and progress bars off the terminal while a function works, or
    any public method of a class; of a generator, while it makes its next item.

    Their errors still appear, as do records that a program's own handlers or a lower level of the
    library's logger ask for (``TRANSFORMERS_VERBOSITY=info``). Bars of downloads from the hub stay.
    """
    if not isinstance(decorated, type):
        return _quiet_function(decorated)  # type: ignore[return-value]
    for name, one in list(vars(decorated).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(one, classmethod):
            setattr(decorated, name, classmethod(_quiet_function(one.__func__)))
        elif inspect.isfunction(one):
            setattr(decorated, name, _quiet_function(one))
    return decorated


def _quiet_function(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        with _QUIET():
            made = function(*given, **named)
        return _quiet_items(made) if inspect.isgenerator(made) else made

    return call


def _quiet_items(made: Generator[Any, Any, Any]) -> Iterator[Any]:
    with contextlib.closing(made):
        while True:
            with _QUIET():
                try:
                    item = next(made)
                except StopIteration:
                    return
            # Between two items the program is at work, not we.
            yield item


class _Quiet:
    """The state that `quiet_calls` changes: once for calls within calls and in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._undo = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if _DIAGNOSIS in logging.getLogger().handlers:  # A command: the whole process is quiet.
            yield
            return
        with self._lock:
            if self._calls == 0:
                self._begin()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self._undo.close()

    def _begin(self) -> None:
        import datasets
        import huggingface_hub.utils as hub
        from transformers.utils import logging as transformers_logging

        transformers_logging.get_logger()  # has its handler from here on
        for name in _TALKATIVE:
            library = logging.getLogger(name)
            # A library that is imported later, as DeepSpeed is, gets its handler then.
            own = [one for one in library.handlers if type(one) is logging.StreamHandler]
            places: list[logging.Filterer] = [*own] or [library]
            for place in places:
                place.addFilter(_errors_alone)
                self._undo.callback(place.removeFilter, _errors_alone)
        if transformers_logging.is_progress_bar_enabled():
            downloads = not hub.are_progress_bars_disabled()
            transformers_logging.disable_progress_bar()
            self._undo.callback(_show_bars, transformers_logging, hub, downloads=downloads)
            if downloads:
                hub.enable_progress_bars()
        # What the environment says of them, no call can change.
        asked = datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None
        if not asked and not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            self._undo.callback(datasets.enable_progress_bars)


_QUIET = _Quiet()


def _errors_alone(record: logging.LogRecord) -> bool:
    """Whether a record is an error, or its library's logger was set to say more than warnings."""
    level = logging.getLogger(record.name.split(".")[0]).level
    return record.levelno >= logging.ERROR or 0 < level < logging.WARNING


def _show_bars(transformers_logging: Any, hub: Any, *, downloads: bool) -> None:
    transformers_logging.enable_progress_bar()  # those of the hub with them
    if not downloads:
        hub.disable_progress_bars()
