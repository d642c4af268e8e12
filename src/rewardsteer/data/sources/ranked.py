"""Several ranked responses to a prompt: by ranks, scores, or UltraFeedback's annotations."""

from collections.abc import Iterator, Mapping
from typing import Any

from rewardsteer.data.responses import Responses
from rewardsteer.data.sources.answers import (
    number_of,
    prompt_alone,
    responses_of,
    rows_of_responses,
)
from rewardsteer.data.sources.files import Row, fields_of, kind_of
from rewardsteer.data.sources.options import RENAMING
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError
from rewardsteer.outputs import given

_FIELDS = ("prompt", "responses", "ranks", "scores", "id", "subset", "tools")
_LISTS = ("responses", "completions")
_RANKS, _SCORES = ("ranks", "rank", "ranking"), ("scores", "score", "ratings", "rewards")


def load(
    split: str, *, path: str | None = None, fields: Mapping[str, str] | None = None,
    reading: Reading | None = None,
) -> Iterator[Responses]:
    """Rows with a prompt, a list of responses, and a list of ``scores`` (higher is better) or of
    ``ranks`` (1 is the best, equal ranks are ties). Without either, the best response is first.
    Raw rows of UltraFeedback work too: a response's rating is the mean of its rated aspects,
    because ``overall_score`` has known errors.

    The order is stored as the number ``rating``, where higher is better; a rank is negated. Rows
    whose responses all have the same rating are left out and counted.

    Args:
        path: local file or folder; None: the data set that ``hub`` names.
        fields: this package's field names → the data's, where they differ.

    Raises:
        ConfigError: neither path nor hub, or an unknown field.
        DataError: absent fields, or lists that do not match; names the row.
    """
    def parse(raw: Row, row: Row, place: str) -> Responses | str:
        responses, ratings = _responses(row, place)
        if len({value for value in ratings if value is not None}) < 2:
            return "without two responses that differ in their rating"
        row = {"subset": given(row, "source"), **row}
        return responses_of(
            row, place, prompt_alone(row, place), responses, {"rating": ratings}
        )

    yield from rows_of_responses(
        "ranked", split, path, reading, parse, fields=fields, known=_FIELDS
    )


def _responses(row: Row, place: str) -> tuple[list[str], list[float | None]]:
    name = next((name for name in _LISTS if name in row), None)
    if name is None:
        raise DataError(
            f"{place}: expected a list of responses as {' or '.join(_LISTS)}, found the field(s) "
            f"{fields_of(row)}; {RENAMING}."
        )
    listed = row[name]
    if not isinstance(listed, list) or not listed:
        raise DataError(
            f"{place}: expected a list of responses as {name}, got "
            f"{'an empty list' if listed == [] else kind_of(listed)}."
        )
    if all(isinstance(one, dict) and "annotations" in one for one in listed):
        return (
            [_text(one.get("response"), place) for one in listed],
            [_mean_rating(one["annotations"], place) for one in listed],
        )
    return [_text(one, place) for one in listed], _order(row, len(listed), place)


def _text(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    raise DataError(f"{place}: expected texts as responses, got {kind_of(value)}.")


def _mean_rating(annotations: Mapping[str, Any], place: str) -> float | None:
    """The mean of those of UltraFeedback's four aspects that are not "N/A"."""
    found = [number_of(one.get("Rating"), "Rating", place) for one in annotations.values()]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _order(row: Row, count: int, place: str) -> list[float | None]:
    for names, sign in ((_SCORES, 1.0), (_RANKS, -1.0)):
        name = next((name for name in names if name in row), None)
        if name is None:
            continue
        values = row[name]
        if not isinstance(values, list) or len(values) != count:
            given = f"{len(values)}" if isinstance(values, list) else kind_of(values)
            raise DataError(
                f"{place}: expected a list {name} of {count} numbers, one for each response, got "
                f"{given}."
            )
        numbers = [number_of(value, name, place) for value in values]
        return [None if value is None else sign * value for value in numbers]
    return [-float(rank) for rank in range(1, count + 1)]
