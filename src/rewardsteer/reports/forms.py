"""Forms of result files, checked when they are read, since other programs write files of the same
names. Fields that no page needs are not checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from rewardsteer.errors import DataError
from rewardsteer.faults import checked


class LogLine(BaseModel):
    """A line of ``metrics.jsonl``."""

    phase: str | None = None
    step: int = Field(default=0, ge=0)


class MethodFigures(BaseModel):
    """Figures of one method."""

    reward: float | None


class Comparison(BaseModel):
    """``summary.json``."""

    methods: dict[str, MethodFigures] = {}


class OverRuns(BaseModel):
    """Figures of methods over several runs."""

    methods: dict[str, MethodFigures] = Field(min_length=1)
    runs: Sequence[Any]
    baseline: str


class CurvePoint(BaseModel):
    """Best of one number of samples."""

    kl_bound: float
    proxy_gain: float | None
    gold_gain: float | None


class Overoptimization(BaseModel):
    """``overoptimization.json``."""

    curve: list[CurvePoint] = []


def formed(form: type[BaseModel], content: Any, place: Path | str) -> Any:
    """The content itself, if it has the form.

    Raises:
        DataError: names the place and the first fault.
    """
    try:
        checked(form, content)
    except ValueError as error:
        raise DataError(
            f"{place}: {error}; this is no result of rewardsteer. Move the file elsewhere, or "
            "make it again."
        ) from error
    return content
