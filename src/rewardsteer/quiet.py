"""Filter for the terminal: rewardsteer's own messages, and only errors of other libraries.

In a command it applies to the whole process: warnings and diagnostic messages are collected and
written to a log file once the command has an output folder. A Python program owns its logging, so
there it applies only during calls of rewardsteer (`quiet_calls`).
"""

import contextlib
import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rewardsteer.log_handlers import OURS, Diagnosis, Terminal

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

LOG = "log.txt"
# Libraries whose loggers print with their own handlers, on standard error or standard output.
_TALKATIVE = ("transformers", "datasets", "huggingface_hub", "DeepSpeed")


_DIAGNOSIS = Diagnosis()


def quiet_libraries(level: int = logging.INFO) -> None:
    """Keep other libraries' warnings and progress bars off the terminal; their errors and our own
    messages from ``level`` on still appear. `keep_log` writes the rest to a file."""
    # Set before transformers is imported, because its quantisation backends log on import.
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, Terminal | Diagnosis)]:
        root.removeHandler(handler)
    root.addHandler(Terminal(level))
    root.addHandler(_DIAGNOSIS)
    logging.getLogger(OURS).setLevel(logging.DEBUG)
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
    """Pass a record of a logger that does not propagate to the root logger's handlers instead."""
    if not logging.getLogger(record.name).propagate:
        logging.getLogger().handle(record)
        return False
    return True


def keep_log(folder: Path) -> None:
    """Write warnings and diagnostic messages, from the start of the command on, to ``log.txt`` in
    its output folder. A Python program without `quiet_libraries` gets no file."""
    if _DIAGNOSIS in logging.getLogger().handlers:
        _DIAGNOSIS.keep(folder / LOG)


def quiet_calls(decorated: Decorated) -> Decorated:
    """Decorate a function or a class's public methods: during a call (for a generator, while it
    computes an item) other libraries' warnings and progress bars stay off the terminal.

    Their errors still appear, as do records for a program's own handlers or from a library logger
    with a lower level (``TRANSFORMERS_VERBOSITY=info``). Bars of downloads from the hub stay.
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
            # Between two items the caller's code runs, which is not filtered.
            yield item


class _Quiet:
    """State changed by `quiet_calls`; nested and concurrent calls change it only once."""

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
        if logging.lastResort is not None:
            # Prints warnings of every library where the program has set up no logging.
            logging.lastResort.addFilter(_ours_or_error)
            self._undo.callback(logging.lastResort.removeFilter, _ours_or_error)
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
        # A setting by environment variable cannot be changed by a call.
        asked = datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None
        if not asked and not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            self._undo.callback(datasets.enable_progress_bars)


_QUIET = _Quiet()


def _errors_alone(record: logging.LogRecord) -> bool:
    """Whether a record is an error, or its library's logger was set to a level below warnings."""
    level = logging.getLogger(record.name.split(".")[0]).level
    return record.levelno >= logging.ERROR or 0 < level < logging.WARNING


def _ours_or_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.name.split(".")[0] == OURS


def _show_bars(transformers_logging: Any, hub: Any, *, downloads: bool) -> None:
    transformers_logging.enable_progress_bar()  # also enables those of the hub
    if not downloads:
        hub.disable_progress_bars()
