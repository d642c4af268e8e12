"""Responses with ratings: one score, or several attributes (as HelpSteer has)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewardsteer.configuration import Count
from rewardsteer.data.responses import Responses
from rewardsteer.data.sources.answers import (
    number_of,
    prompt_and_response,
    responses_of,
    rows_of_responses,
)
from rewardsteer.data.sources.files import Row, fields_of
from rewardsteer.data.sources.helpsteer import ATTRIBUTES
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import ConfigError, DataError

# Names of a column with a single rating, which becomes the number "rating".
SCORES = ("rating", "score", "reward", "label")
_FIELDS = ("prompt", "response", "rating", "id", "subset", "tools")


def load(
    split: str, *, path: str | None = None, attributes: Sequence[str] | None = None,
    fields: Mapping[str, str] | None = None, together: Count = 8, reading: Reading | None = None,
) -> Iterator[Responses]:
    """Rows with a prompt, a response (``response``, ``completion`` or ``output``) and ratings.

    Ratings that are null or "N/A" count as missing; rows without any rating are left out and
    counted. Consecutive rows with the same prompt are merged, so that training processes the prompt
    once and evaluation compares its responses.

    Args:
        path: local file or folder; None: the data set that ``hub`` names.
        attributes: columns of ratings (or keys of a mapping in ``attributes`` or ``scores``), kept
            under their names. None: those of HelpSteer's five that the first row has, and the first
            of ``rating``, ``score``, ``reward`` and ``label`` that it has, kept as ``rating``.
        fields: this package's field names → the data's, where they differ.
        together: most responses in a merged row.

    Raises:
        ConfigError: neither path nor hub, or an option of a wrong type.
        DataError: absent fields, or ratings that are not numbers; names the row.
    """
    if attributes is not None and (isinstance(attributes, str) or not attributes):
        raise ConfigError(f"attributes must be a list of columns, got {attributes!r}.")
    if isinstance(together, bool) or not isinstance(together, int) or together < 1:
        raise ConfigError(f"together must be a whole number of 1 or more, got {together!r}.")
    names = None if attributes is None else tuple(attributes)

    def parse(raw: Row, row: Row, place: str) -> Responses | str:
        nonlocal names
        if names is None:
            names = _attributes(raw | row, place)
        ratings = _ratings(raw | row, names, place, any_score=attributes is None)
        if all(value is None for value in ratings.values()):
            return "without a rating"
        prompt, response = prompt_and_response(row, place)
        return responses_of(
            row, place, prompt, [response], {name: [value] for name, value in ratings.items()}
        )

    yield from rows_of_responses(
        "ratings", split, path, reading, parse, fields=fields, known=_FIELDS, together=together
    )


def _attributes(row: Row, place: str) -> tuple[str, ...]:
    """The names of a row's ratings."""
    found = tuple(name for name in ATTRIBUTES if name in row)
    if any(name in row for name in SCORES):
        found += ("rating",)
    if found:
        return found
    raise DataError(
        f"{place}: expected ratings as {', '.join(SCORES)} or HelpSteer's attributes, found "
        f"{fields_of(row)}; name the columns in options.attributes."
    )


def _ratings(
    row: Row, names: Sequence[str], place: str, *, any_score: bool
) -> dict[str, float | None]:
    nested: dict[str, Any] = {}
    for name in ("attributes", "scores"):
        value = row.get(name)
        nested |= value if isinstance(value, dict) else {}
    values = nested | row
    columns = {
        name: next((one for one in SCORES if one in row), name)
        if name == "rating" and any_score else name for name in names
    }
    if not any(column in values for column in columns.values()):
        raise DataError(
            f"{place}: expected ratings as {', '.join(names)}, found the field(s) "
            f"{fields_of(row)}; name the columns in options.attributes."
        )
    return {
        name: number_of(values.get(column), column, place) for name, column in columns.items()
    }
