"""What training reports: a bar per phase and a line at its end on the terminal; log lines in a
file."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rewardsteer.errors import OutputError
from rewardsteer.outputs import reason, remedy
from rewardsteer.progress import Stage, stages

logger = logging.getLogger(__name__)
# Figures of a log line that are shown, and their names.
_FIGURES = {"loss": "loss", "eval_accuracy": "accuracy"}


class Showing(TrainerCallback):
    """Reports updates and the latest figures.

    Args:
        title: of the phase; None: the caller reports its end.
        announce: shows the number of updates done and in all.
    """

    def __init__(self, title: str | None, announce: Stage) -> None:
        self.title, self.announce = title, announce
        self.figures: dict[str, float] = {}
        self._began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._show(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._show(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        known = {name: logs[name] for name in _FIGURES if name in (logs or {})}
        self.figures |= {_FIGURES[name]: float(value) for name, value in known.items()}

    def _show(self, state: Any) -> None:
        if state.is_world_process_zero:
            note = f"loss {self.figures['loss']:.3g}" if "loss" in self.figures else ""
            self.announce(self.title or "training", state.global_step, state.max_steps, note)

    def report(self) -> None:
        """Log a line on a finished phase."""
        spent = timedelta(seconds=round(time.monotonic() - self._began))
        figures = ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        logger.info("%s: %s%s", self.title, f"{figures}, " if figures else "", spent)


def finite_or_none(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with None in place of NaN and infinities."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


class LogLines(TrainerCallback):
    """Appends every log line to a JSONL file, with the phase it belongs to."""

    def __init__(self, path: Path, phase: str) -> None:
        self.path = path
        self.phase = phase

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        # JSON has no NaN; a gradient norm is one where a loss scaler skips an update.
        row = {"phase": self.phase, "step": state.global_step, **finite_or_none(logs)}
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(
                f"The log {self.path} cannot be written: {reason(error)}; {remedy(error)}. "
                "Finished phases and checkpoints are kept."
            ) from error


@contextmanager
def showing(
    trainer: Any, title: str | None, *, bar: bool, lines: bool
) -> Iterator[Showing]:
    """Show a trainer's progress as long as this is open; the library's own displays are removed."""
    from transformers import PrinterCallback, ProgressCallback

    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    first = trainer.is_world_process_zero()
    with stages("updates", bar=bar and first, lines=lines and first) as announce:
        callback = Showing(title, announce)
        trainer.add_callback(callback)
        yield callback
    if first and title is not None:
        callback.report()
