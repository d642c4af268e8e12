"""Prompts to answer, from JSONL or from Python. No torch here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import StrictInt

from rewardsteer.data.sources.turns import read_prompt
from rewardsteer.errors import DataError
from rewardsteer.faults import checked
from rewardsteer.outputs import given, read_jsonl
from rewardsteer.records import Prompt, Record


class Request(Record):
    """A prompt to answer.

    Attributes:
        id: unique within its set; the row's random draws are made from it.
        prompt: text or conversation, to be written with the template.
        prompt_ids: token ids of the prompt as it shall be read; when given, nothing is rendered.
    """

    id: str
    prompt: Prompt
    prompt_ids: list[StrictInt] | None = None


def as_requests(prompts: Sequence[Prompt | Request]) -> list[Request]:
    """Number bare prompts "0", "1", …; requests stay as they are.

    Raises:
        DataError: two requests share an id.
    """
    requests = [
        prompt if isinstance(prompt, Request) else Request(id=str(index), prompt=prompt)
        for index, prompt in enumerate(prompts)
    ]
    _require_distinct(requests, "the prompts")
    return requests


def read_requests(path: Path, *, limit: int | None = None) -> list[Request]:
    """Requests of a JSONL file: ``prompt`` (text or list of messages), optional ``id`` (default:
    the line number) and ``prompt_ids``; null counts as absent, other fields are left alone. Of a
    text file (.txt) each line that is not empty is a prompt.

    Raises:
        DataError: unreadable, malformed or empty file, a row without prompt, or a repeated id;
            names the line.
    """
    if path.suffix in (".csv", ".tsv", ".parquet", ".arrow", ".gz"):
        raise DataError(
            f"The prompts {path} are of the kind {path.suffix}; expected JSON lines with 'prompt' "
            "(.jsonl) or a prompt per line (.txt)."
        )
    requests: list[Request] = []
    for number, row in _lines(path) if path.suffix == ".txt" else read_jsonl(path):
        if limit is not None and len(requests) >= limit:
            break
        if given(row, "prompt", None) is None:
            found = "null" if "prompt" in row else ", ".join(sorted(row)) or "none"
            raise DataError(f"{path}, line {number}: expected a field 'prompt', found {found}.")
        values = {name: row[name] for name in ("prompt", "prompt_ids") if row.get(name) is not None}
        place = f"{path}, line {number}"
        values["prompt"] = read_prompt(row["prompt"], place)
        try:
            requests.append(checked(Request, {"id": str(given(row, "id", number)), **values}))
        except ValueError as error:
            raise DataError(
                f"{place}: expected 'prompt_ids' as a list of token ids; {error}."
            ) from error
    if not requests:
        raise DataError(
            f"{path} holds no prompts; expected one JSON object with 'prompt' per line, or "
            "a .txt file with one prompt per line."
        )
    _require_distinct(requests, str(path))
    return requests


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, {"prompt": line.rstrip("\r\n")}
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The file {path} is not UTF-8 text: {error}.") from error


def _require_distinct(requests: Sequence[Request], where: str) -> None:
    seen: dict[str, int] = {}
    for number, request in enumerate(requests, start=1):
        if request.id in seen:
            raise DataError(
                f"Prompts {seen[request.id]} and {number} of {where} share the id {request.id!r}; "
                "ids must differ."
            )
        seen[request.id] = number
