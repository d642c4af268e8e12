"""ASDiv: its XML file, ``{input, target}`` or ``{body, question, answer}``."""

import gzip
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from rewardsteer.data.sources.opening import Row
from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Format, answer_text, fields, file_rows, story


def _rows(file: Path) -> Iterator[tuple[str, Row]]:
    is_xml = file.name.removesuffix(".gz").lower().endswith(".xml")
    return _xml_rows(file) if is_xml else file_rows(file)


def _xml_rows(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        content = file.read_bytes()
        if file.name.endswith(".gz"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"The file {file} cannot be read as UTF-8 text: {error}.") from error
    # Entities can expand a small file to any size; the published file declares none.
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


def _asdiv(row: Row, place: str) -> tuple[str, str]:
    if "input" in row:
        return fields("input", "target")(row, place)
    question, answer = story(row, place)
    numbers = re.sub(r"\s*\([^()]*\)", "", answer).strip()
    return question, answer_text(numbers or answer, place)


ASDIV = Format(_asdiv, _rows)
