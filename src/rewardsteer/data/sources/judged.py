"""Pairs judged by people: LLMBar, PandaLM and LLaMA-Factory's preference files."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.comparisons import comparisons
from rewardsteer.data.sources.conversations import from_conversations
from rewardsteer.data.sources.files import Row, fields_of, require
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison

_SUFFIX = re.compile(r"\.jsonl?(\.gz)?$")
_FIELDS = {
    "llmbar": ("input", "output_1", "output_2", "label"),
    "pandalm": (
        "instruction", "input", "response1", "response2",
        "annotator1", "annotator2", "annotator3",
    ),
    "llamafactory": ("conversations", "chosen", "rejected"),
}
_ROLES = ("system", "user", "assistant", "tool")


def load(
    split: str, *, path: str | None = None, layout: str = "auto", reading: Reading | None = None
) -> Iterator[Comparison]:
    """Comparisons judged by people; ties are left out.

    Args:
        path: local file, or a folder with ``train.*`` and ``test.*`` files, or one with other
            ``.json`` and ``.jsonl`` files (also ``.gz``), which are then all read as training data.
        layout: ``llmbar``, ``pandalm`` or ``llamafactory``; ``auto`` decides by each row's fields.

    Raises:
        ConfigError: no path, or an unknown layout.
        DataError: absent fields, or an invalid verdict; names the row.
    """
    if path is None:
        raise ConfigError("The source judged needs the path of a file or a folder.")
    if layout != "auto" and layout not in _FIELDS:
        raise ConfigError(f"Unknown layout {layout!r}; known: auto, {', '.join(_FIELDS)}.")
    reading = reading or Reading()

    def parse(row: Row, place: str) -> Comparison | str:
        found = _layout(row, place) if layout == "auto" else layout
        require(row, list(_FIELDS[found]), place)
        return _READERS[found](row, place)

    rows = (
        row for file in _files(Path(path))
        for row in read_rows(split, str(file), "", reading=reading)
    )
    yield from comparisons("judged", split, rows, reading, parse)


def _files(place: Path) -> list[Path]:
    """The files of a folder without splits; for any other path, the path itself."""
    if not place.is_dir():
        return [place]
    names = {file.name for file in place.iterdir()}
    splits = any(name.split(".")[0].split("-")[0] in ("train", "test") for name in names)
    if splits or names & {"dataset_info.json", "dataset_dict.json"}:
        return [place]
    files = sorted(file for file in place.iterdir() if _SUFFIX.search(file.name))
    # A folder without such files is returned itself: `read_rows` then reports what is missing.
    return files or [place]


def _layout(row: Row, place: str) -> str:
    for name, fields in _FIELDS.items():
        if all(field in row for field in fields):
            return name
    known = "; ".join(f"{name} ({', '.join(fields)})" for name, fields in _FIELDS.items())
    raise DataError(
        f"{place}: expected the fields of one of the layouts {known}; found {fields_of(row)}."
    )


def _llmbar(row: Row, place: str) -> Comparison:
    verdict = _verdict(row["label"], (1, 2), "label", place)
    prompt, first, second = _texts(row, ("input", "output_1", "output_2"), place)
    # Each published file is a subset.
    subset = _SUFFIX.sub("", Path(place.rpartition(", ")[0]).name)
    return _ordered(prompt, first, second, verdict, subset)


def _pandalm(row: Row, place: str) -> Comparison | str:
    names = [f"annotator{number}" for number in (1, 2, 3)]
    votes = Counter(_verdict(row[name], (0, 1, 2), name, place) for name in names)
    verdict, count = votes.most_common(1)[0]
    # Three different votes have no majority and count as a tie.
    if verdict == 0 or count == 1:
        return "judged a tie"
    instruction, context, first, second = _texts(
        row, ("instruction", "input", "response1", "response2"), place
    )
    prompt = f"{instruction}\n\n{context}" if context else instruction
    subset = row.get("cmp_key") or row.get("motivation_app") or ""
    return _ordered(prompt, first, second, verdict, str(subset))


def _llamafactory(row: Row, place: str) -> Comparison | str:
    comparison = from_conversations(row, place)
    assert isinstance(comparison, Comparison), "what parts early is an error here"
    for message in comparison.prompt:
        if isinstance(message, str) or message.role not in _ROLES:
            raise DataError(
                f"{place}: expected conversations of system, human and gpt turns, found "
                f"{'a text' if isinstance(message, str) else repr(message.role)}."
            )
    return comparison


_READERS: dict[str, Callable[[Row, str], Comparison | str]] = {
    "llmbar": _llmbar, "pandalm": _pandalm, "llamafactory": _llamafactory,
}


def _ordered(
    prompt: str, first: str, second: str, verdict: int, subset: str
) -> Comparison:
    chosen, rejected = (first, second) if verdict == 1 else (second, first)
    return Comparison(id="", prompt=prompt, chosen=chosen, rejected=rejected, subset=subset)


def _texts(row: Row, names: tuple[str, ...], place: str) -> list[str]:
    for name in names:
        # In PandaLM's published files the answer "True" is the JSON value true.
        if not isinstance(row[name], str | bool | int | float):
            raise DataError(
                f"{place}: expected a text as {name}, got {type(row[name]).__name__}."
            )
    return [str(row[name]) for name in names]


def _verdict(value: Any, allowed: tuple[int, ...], name: str, place: str) -> int:
    # CSV files hold numbers as text.
    for verdict in allowed:
        if not isinstance(value, bool) and value in (verdict, str(verdict)):
            return verdict
    known = " or ".join(map(str, allowed))
    raise DataError(f"{place}: expected {known} as {name}, got {value!r}.")
