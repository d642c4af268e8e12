"""The parts of a maths benchmark: its problems, and how the rows of its file are parsed."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import read_rows
from rewardsteer.errors import DataError

Parse = Callable[[Row, str], tuple[str, str]]


@dataclass(frozen=True)
class Problem:
    """One question with its reference final answer as text."""

    id: str
    benchmark: str
    question: str
    answer: str


def file_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """Yield places (for messages) and rows of JSON lines, a JSON list, CSV or Parquet."""
    return read_rows("train", str(file), "")


@dataclass(frozen=True)
class Format:
    """How a benchmark's published file is parsed.

    Attributes:
        read: returns question and answer of a row; the second argument names the row in messages.
        rows: yields the rows of a file; default: `file_rows`.
    """

    read: Parse
    rows: Callable[[Path], Iterator[tuple[str, Row]]] = file_rows


def fields(question: str, answer: str) -> Parse:
    """A parser that takes question and answer from one field each."""

    def read(row: Row, place: str) -> tuple[str, str]:
        require(row, [question, answer], place)
        return text(row[question], question, place), answer_text(row[answer], place)

    return read


def story(row: Row, place: str) -> tuple[str, str]:
    """Parse a question in two parts, ``body`` and ``question``; field names in any case."""
    fields = {name.lower(): value for name, value in row.items()}
    require(fields, ["question", "answer"], place)
    question = text(fields["question"], "question", place)
    body = str(fields.get("body") or "").strip()
    return _join(body, question) if body else question, answer_text(fields["answer"], place)


def _join(body: str, question: str) -> str:
    """Body and question joined: by a comma after "If there are 3 boxes", else by a full stop."""
    if body[-1] in ".?!,;:":
        return f"{body} {question}"
    last = re.split(r"[.?!]\s+", body)[-1]
    return f"{body}{',' if last.startswith(('If ', 'When ')) else '.'} {question}"


def text(value: Any, field: str, place: str) -> str:
    """A field that holds text, stripped; raises `DataError` on anything else."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: expected text in {field}, got {value!r}.")
    return value.strip()


def answer_text(value: Any, place: str) -> str:
    """An answer as text: whole numbers without ".0", numbers without exponents and commas."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{place}: expected a number or text as the answer, got {value!r}.")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{place}: expected a finite answer, got {value!r}.")
        value = format(Decimal(repr(value)), "f")
    written = text(str(value), "the answer", place)
    if re.fullmatch(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", written):
        written = written.replace(",", "")
    return re.sub(r"^([+-]?[0-9]+)\.0*$", r"\1", written)
