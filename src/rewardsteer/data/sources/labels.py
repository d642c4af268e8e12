"""Single responses labelled good or bad: TRL's unpaired preferences, as used by KTO."""

from collections.abc import Iterator, Mapping

from rewardsteer.data.responses import Responses
from rewardsteer.data.sources.answers import (
    number_of,
    prompt_and_response,
    responses_of,
    rows_of_responses,
)
from rewardsteer.data.sources.files import Row, kind_of, require
from rewardsteer.data.sources.options import RENAMING
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError

_FIELDS = ("prompt", "completion", "label", "id", "subset", "tools")
_WORDS = {"true": 1.0, "false": 0.0}


def load(
    split: str, *, path: str | None = None, fields: Mapping[str, str] | None = None,
    reading: Reading | None = None,
) -> Iterator[Responses]:
    """Rows with ``prompt``, ``completion`` and ``label``: true, false, or the probability from 0 to
    1 that the response is good. Rows without a label are left out and counted.

    Args:
        path: local file or folder; None: the data set that ``hub`` names.
        fields: this package's field names → the data's, where they differ.

    Raises:
        ConfigError: neither path nor hub, or an unknown field.
        DataError: absent fields, or another kind of label; names the row.
    """
    def parse(raw: Row, row: Row, place: str) -> Responses | str:
        require(raw, [(fields or {}).get("label", "label")], place, remedy=RENAMING)
        value = row.get("label")
        if isinstance(value, str):
            value = _WORDS.get(value.strip().lower(), value)
        label = number_of(value, "label", place, expected="true, false or a number from 0 to 1")
        if label is None:
            return "without a label"
        if not 0 <= label <= 1:
            raise DataError(
                f"{place}: expected true, false or a number from 0 to 1 as label, got "
                f"{kind_of(value)}."
            )
        prompt, response = prompt_and_response(row, place)
        return responses_of(row, place, prompt, [response], {"label": [label]})

    yield from rows_of_responses(
        "labels", split, path, reading, parse, fields=fields, known=_FIELDS
    )
