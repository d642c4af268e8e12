r"""The problems of seven public maths benchmarks, read from the files they are published as.

gsm8k {question, answer "… #### 18"}; math {problem, answer or solution with ``\boxed{}``}; gsm-hard
and mawps {input, target}; asdiv, the XML file or {body, question, answer}; algebra222 {question,
final_answer}; svamp {Body, Question, Answer}. Rows are JSON lines, a JSON list or CSV.
"""

import gzip
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rewardsteer.data.answers import last_boxed
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.registry import nearest

_ID_FIELDS = ("ID", "id", "unique_id", "idx")


@dataclass(frozen=True)
class Problem:
    """One question with its reference final answer as text."""

    id: str
    benchmark: str
    question: str
    answer: str


def load_problems(benchmark: str, path: str | Path) -> list[Problem]:
    """Read all problems of a benchmark file.

    A problem's id is the row's own, or the benchmark's name with the row's index from 0.

    Args:
        benchmark: one of `BENCHMARKS`.
        path: the published file; the text forms may be gzip-compressed.

    Raises:
        ConfigError: the benchmark is unknown.
        DataError: the file is absent or malformed, a field is missing or an id occurs twice.
    """
    if benchmark not in _READERS:
        raise ConfigError(
            f"Unknown benchmark {benchmark!r}.{nearest(benchmark, list(BENCHMARKS))} Known: "
            f"{', '.join(BENCHMARKS)}."
        )
    file = Path(path)
    if not file.is_file():
        raise DataError(f"Expected the file of {benchmark} at {file}, there is no such file.")
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for index, (place, row) in enumerate(_rows(benchmark, file)):
        question, answer = _READERS[benchmark](row, place)
        own = next((row[name] for name in _ID_FIELDS if row.get(name) not in (None, "")), None)
        name = f"{benchmark}-{index}" if own is None else str(own)
        if name in places:
            raise DataError(f"{place}: the id {name!r} was already used at {places[name]}.")
        places[name] = place
        problems.append(Problem(name, benchmark, question, answer))
    return problems


def _rows(benchmark: str, file: Path) -> Iterator[tuple[str, Row]]:
    if benchmark == "asdiv" and file.name.removesuffix(".gz").lower().endswith(".xml"):
        return _asdiv_xml(file)
    return read_rows("train", str(file), "")


def _asdiv_xml(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        content = file.read_bytes()
        if file.name.endswith(".gz"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"The file {file} cannot be read as UTF-8 text: {error}.") from error
    # Entities can blow a small file up to any size; the benchmark's own file declares none.
    if re.search(r"<!\s*(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DataError(f"The file {file} declares a DOCTYPE or an ENTITY; remove it.")
    try:
        root = ET.fromstring(text)  # noqa: S314 -- checked above
    except ET.ParseError as error:
        raise DataError(f"The file {file} is not valid XML: {error}.") from error
    problems = list(root.iter("Problem"))
    if not problems:
        raise DataError(f"The file {file} holds no <Problem>.")
    for index, problem in enumerate(problems, start=1):
        row: Row = {child.tag: "".join(child.itertext()) for child in problem}
        row["ID"] = problem.get("ID")
        yield f"{file}, problem {index}", row


def _gsm8k(row: Row, place: str) -> tuple[str, str]:
    require(row, ["question", "answer"], place)
    _, mark, answer = _text(row["answer"], "answer", place).rpartition("####")
    if not mark:
        raise DataError(f"{place}: expected '####' before the final answer.")
    return _text(row["question"], "question", place), _answer(answer, place)


def _math(row: Row, place: str) -> tuple[str, str]:
    require(row, ["problem"], place)
    question = _text(row["problem"], "problem", place)
    if row.get("answer") not in (None, ""):
        return question, _answer(row["answer"], place)
    require(row, ["solution"], place)
    boxed = last_boxed(_text(row["solution"], "solution", place))
    if boxed is None:
        raise DataError(f"{place}: expected an answer, or a solution with \\boxed{{…}}.")
    return question, _answer(boxed, place)


def _pair(question: str, answer: str) -> Callable[[Row, str], tuple[str, str]]:
    def read(row: Row, place: str) -> tuple[str, str]:
        require(row, [question, answer], place)
        return _text(row[question], question, place), _answer(row[answer], place)

    return read


def _asdiv(row: Row, place: str) -> tuple[str, str]:
    if "input" in row:
        return _pair("input", "target")(row, place)
    question, answer = _story(row, place)
    numbers = re.sub(r"\s*\([^()]*\)", "", answer).strip()
    return question, _answer(numbers or answer, place)


def _story(row: Row, place: str) -> tuple[str, str]:
    """A question told in a body and a question, with field names in either case."""
    fields = {name.lower(): value for name, value in row.items()}
    require(fields, ["question", "answer"], place)
    question = _text(fields["question"], "question", place)
    body = str(fields.get("body") or "").strip()
    return _join(body, question) if body else question, _answer(fields["answer"], place)


def _svamp(row: Row, place: str) -> tuple[str, str]:
    require(row, ["Body", "Question", "Answer"], place)
    return _story(row, place)


def _join(body: str, question: str) -> str:
    """Body and question in one text; "If there are 3 boxes" wants a comma, others a full stop."""
    if body[-1] in ".?!,;:":
        return f"{body} {question}"
    last = re.split(r"[.?!]\s+", body)[-1]
    return f"{body}{',' if last.startswith(('If ', 'When ')) else '.'} {question}"


def _text(value: Any, field: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: expected text in {field}, got {value!r}.")
    return value.strip()


def _answer(value: Any, place: str) -> str:
    """An answer as text: whole numbers without ".0", numbers without exponents and commas."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{place}: expected a number or text as the answer, got {value!r}.")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{place}: expected a finite answer, got {value!r}.")
        value = format(Decimal(repr(value)), "f")
    text = _text(str(value), "the answer", place)
    if re.fullmatch(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", text):
        text = text.replace(",", "")
    return re.sub(r"^([+-]?[0-9]+)\.0*$", r"\1", text)


_READERS: dict[str, Callable[[Row, str], tuple[str, str]]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "gsm-hard": _pair("input", "target"),
    "mawps": _pair("input", "target"),
    "asdiv": _asdiv,
    "algebra222": _pair("question", "final_answer"),
    "svamp": _svamp,
}
BENCHMARKS: tuple[str, ...] = tuple(_READERS)
