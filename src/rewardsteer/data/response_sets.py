"""Responses with numbers as token ids, and the prepared set ``responses`` made of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.data.responses import Responses
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import TokenizedRow, one_prompt, render_and_encode


class PreparedResponses(NamedTuple):
    """A row of responses that is kept."""

    row: Responses
    tokens: list[TokenizedRow]
    prompt: str

    @property
    def prompt_ids(self) -> list[int]:
        return self.tokens[0].prompt_ids

    @property
    def response_ids(self) -> list[list[int]]:
        """Token ids of each response, its end included."""
        return [one.response_ids for one in self.tokens]


def encode_responses(
    rows: Sequence[Responses], template: Template, tokenizer: Any
) -> list[list[TokenizedRow]]:
    """Render and tokenize responses, all in two calls of the tokenizer."""
    encoded = render_and_encode(
        [row.prompt for row in rows for _ in row.responses],
        [text for row in rows for text in row.responses],
        template, tokenizer, [row.tools for row in rows for _ in row.responses],
    )
    found, begin = [], 0
    for row in rows:
        end = begin + len(row.responses)
        found.append(one_prompt(encoded[begin:end], template, tokenizer))
        begin = end
    return found


def response_tables(rows: Sequence[PreparedResponses], numbers: Sequence[str]) -> dict[str, Any]:
    """The table of the set ``responses`` (see `rewardsteer.data.store`), one row per prompt.

    Args:
        numbers: names of their numbers; where empty, the table has no such column.
    """
    import pyarrow as pa

    texts, ids = pa.string(), pa.list_(pa.int32())
    columns = {
        "id": pa.array([one.row.id for one in rows], texts),
        "prompt": pa.array([one.prompt for one in rows], texts),
        "responses": pa.array([one.row.responses for one in rows], pa.list_(texts)),
        "source": pa.array([one.row.source for one in rows], texts),
        "subset": pa.array([one.row.subset for one in rows], texts),
        "prompt_ids": pa.array([one.prompt_ids for one in rows], ids),
        "response_ids": pa.array([one.response_ids for one in rows], pa.list_(ids)),
    }
    if numbers:
        columns["numbers"] = pa.StructArray.from_arrays([
            pa.array([
                one.row.numbers.get(name) or [None] * len(one.row.responses) for one in rows
            ], pa.list_(pa.float64())) for name in numbers
        ], names=list(numbers))
    return {"responses": pa.table(columns)}
