"""Math-Shepherd (arXiv 2312.08935): solutions with a mark after each step, and the same text with +
or - in place of each mark."""

from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.labelled import SEPARATOR, check_separator, solution
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

_HUB = "peiyi9979/Math-Shepherd"
_MARK = "ки"
_LABELS = {"+": 1.0, "-": 0.0}
FIRST = "Step 1:"


def load(
    split: str, *, path: str | None = None, separator: str = SEPARATOR, first: str = FIRST,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """One row for each solution, from ``input`` and ``label``; ``task`` becomes the subset.

    Args:
        path: local file or folder; None reads the hub.
        separator: written between two steps.
        first: text at the beginning of the first step; the question ends before it.

    Raises:
        ConfigError: a separator that is no white space.
        DataError: absent fields, or texts that do not match; names the row.
    """
    check_separator(separator)

    def parse(row: Row, place: str) -> Comparison:
        require(row, ["input", "label"], place)
        texts, labels = _aligned(row["input"], row["label"], place)
        question, step = divided(texts[0], first, place)
        found = solution(question, [step, *texts[1:]], labels, place, separator=separator)
        return found.model_copy(update={"subset": str(row.get("task") or "")})

    yield from read_comparisons("math_shepherd", split, path, reading, parse, hub=_HUB)


def divided(text: str, first: str, place: str) -> tuple[str, str]:
    """Question and first step of a text that holds both.

    Raises:
        DataError: ``first`` does not occur in the text.
    """
    at = text.rfind(first)
    if at < 1:
        raise DataError(
            f"{place}: expected a question and a first step that begins with {first!r}; where "
            "steps begin otherwise, name it in sources.0.options.first (0: the first source)."
        )
    return text[:at].strip(), text[at:].strip()


def _aligned(text: str, labels: str, place: str) -> tuple[list[str], list[float | None]]:
    """The steps before each mark, and their labels from the labelled text."""
    parts = text.split(_MARK)
    found: list[float | None] = []
    at = 0
    for part in parts[:-1]:
        end = at + len(part)
        if labels[at:end] != part or labels[end : end + 1] not in _LABELS:
            break
        found.append(_LABELS[labels[end]])
        at = end + 1
    if not found or len(found) != len(parts) - 1 or labels[at:] != parts[-1]:
        raise DataError(
            f"{place}: expected in label the text of input with + or - for each of its "
            f"{len(parts) - 1} marks {_MARK!r}; they differ behind {len(found)} of them."
        )
    if parts[-1].strip():
        return parts, [*found, None]
    return parts[:-1], found
