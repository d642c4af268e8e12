"""How long a row a backbone can read."""

from collections.abc import Iterable
from typing import Any

from rewardsteer.errors import DataError


def position_limit(config: Any) -> int | None:
    """Most positions the model was built for; None when it states none."""
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    return int(limit) if limit else None


def check_length(
    number: int, length: int, limit: int | None, *, reader: str = "",
    parts: str = "its prompt or completion",
) -> None:
    """Refuse a row that a model cannot read.

    Args:
        number: of the row, from 1.
        length: its tokens.
        limit: see `position_limit`.
        reader: what the message calls the model.
        parts: what can be shortened.

    Raises:
        DataError: names the row.
    """
    if limit is not None and length > limit:
        raise DataError(
            f"Row {number} has {length} tokens, but {reader or 'the reward model'} reads at most "
            f"{limit}; shorten {parts}."
        )


def check_lengths(lengths: Iterable[int], limit: int | None, *, first_row: int = 0) -> None:
    """Refuse rows of no token and rows that a model cannot read; ``first_row`` rows came before.

    Raises:
        DataError: names the row.
    """
    for number, length in enumerate(lengths, start=first_row + 1):
        if length == 0:
            raise DataError(f"Row {number} holds no token to score; give it a completion.")
        check_length(number, length, limit)


def padding_id(config: Any) -> int | None:
    """The padding id in a model's configuration, which its plain sequence classifier skips."""
    found = getattr(config.get_text_config(), "pad_token_id", None)
    return found if isinstance(found, int) else None
