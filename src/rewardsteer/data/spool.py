"""Rows on disk in the order in which they were read, with a small index in memory.

The index takes 33 bytes per row, whatever its size: its offset, and hashes of its prompt, of its
content and of its id. With 64 bits, a collision among a million different rows happens once in
thirty million preparations.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rewardsteer.data.responses import SourceRow
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison


class Spool:
    """Rows of all sources, written once, front to back.

    Attributes:
        parts: ``{(source's number, split): range of row numbers}``.
        extras: names of the rows' further numbers.
        steps: whether any row has labelled steps.
        writers: whether any row names the models that wrote its responses.
        kind: record type of all rows, `Comparison` or `Responses`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[tuple[int, str], range] = {}
        self.extras: set[str] = set()
        self.steps = self.writers = False
        self.kind: type[SourceRow] = Comparison
        self._file = path.open("xb")
        self._begins, self._end = array("Q"), 0
        self._prompts, self._contents, self._ids = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, row: SourceRow) -> None:
        """Append a row.

        Raises:
            DataError: it has another record type than the rows before it.
        """
        if not len(self):
            self.kind = type(row)
        elif not isinstance(row, self.kind):
            raise DataError(
                f"{row.place or row.id}: a data set holds preference pairs or responses with "
                "numbers, not both; prepare the sources apart."
            )
        # NUL separates the fields: neither paths nor JSON texts contain it.
        line = row.place.encode() + b"\0" + row.model_dump_json(exclude_none=True).encode() + b"\n"
        self._file.write(line)
        self._begins.append(self._end)
        self._end += len(line)
        prompt = prompt_key(row)
        if isinstance(row, Comparison):
            self.extras |= row.extras.keys()
            self.steps = self.steps or bool(row.step_ends)
            self.writers = self.writers or bool(row.chosen_by or row.rejected_by)
            content = [row.chosen, row.rejected]
        else:
            self.extras |= row.numbers.keys()
            # The same response with a different rating counts as another annotator's row.
            content = [*row.responses, json.dumps(row.numbers)]
        self._prompts.append(_hash(prompt))
        self._contents.append(_hash(prompt, *content, row.subset))
        self._ids.append(_hash(row.id))

    def close(self) -> None:
        """Flush the rows to disk; no rows can be added afterwards."""
        self._file.close()

    @property
    def begins(self) -> np.ndarray:
        """The file offset at which each row begins, and the end of the last row."""
        return np.append(np.frombuffer(self._begins, np.uint64), np.uint64(self._end))

    @property
    def prompts(self) -> np.ndarray:
        """A hash of each row's prompt."""
        return np.frombuffer(self._prompts, np.uint64)

    @property
    def contents(self) -> np.ndarray:
        """A hash of each row without its id, margin and source."""
        return np.frombuffer(self._contents, np.uint64)

    @property
    def ids(self) -> np.ndarray:
        """A hash of each row's id."""
        return np.frombuffer(self._ids, np.uint64)


def read_spooled(
    path: Path, begins: np.ndarray, rows: Sequence[int], kind: type[SourceRow] = Comparison
) -> list[SourceRow]:
    """Rows of a spool in the given order, from any process with access to the file.

    Args:
        begins: `Spool.begins`.
        rows: their numbers.
        kind: `Spool.kind`.
    """
    found: list[SourceRow] = []
    with path.open("rb") as file:
        for number in rows:
            begin, end = int(begins[number]), int(begins[number + 1])
            file.seek(begin)
            place, _, content = file.read(end - begin).partition(b"\0")
            row = kind.model_validate_json(content)
            found.append(row.model_copy(update={"place": place.decode()}))
    return found


def prompt_key(row: SourceRow) -> str:
    """A text that is equal for rows with equal prompts and tools."""
    if isinstance(row.prompt, str):
        prompt = row.prompt
    else:
        prompt = json.dumps([message.model_dump() for message in row.prompt])
    return prompt if row.tools is None else f"{prompt}\0{json.dumps(row.tools, sort_keys=True)}"


def _hash(*texts: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        part = text.encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")
