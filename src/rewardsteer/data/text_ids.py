"""Texts as token ids, and back."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.errors import DataError


def token_ids(text: Any, tokenizer: Any, *, special: bool) -> Any:
    """The ids of a text, or of each of several.

    Raises:
        DataError: the tokenizer has no token for a part of the text, and no unknown token.
    """
    try:
        return tokenizer(text, add_special_tokens=special)["input_ids"]
    except Exception as error:
        # The library raises no more specific error.
        if type(error) is not Exception:
            raise
        raise DataError(
            f"A text cannot be written with the tokenizer {tokenizer.name_or_path or 'at hand'} "
            f"({error}); leave out signs that it does not know, or use another model."
        ) from error


def bare_ids(text: str, tokenizer: Any) -> list[int]:
    """The ids of a text, without special tokens added by the tokenizer; raises as `token_ids`."""
    return list(token_ids(text, tokenizer, special=False))


def plain_text(ids: Sequence[int], tokenizer: Any, *, special: bool = False) -> str:
    """The text of token ids as it stands, with or without special tokens. Some tokenizers would
    otherwise drop spaces before punctuation."""
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return text


def added_ids(bare: list[int], dressed: list[int]) -> tuple[list[int], list[int]]:
    """Ids before and after ``bare`` in ``dressed``, which a tokenizer adds to a text. Both are
    empty where ``bare`` is not a contiguous part of ``dressed``."""
    for at in range(len(dressed) - len(bare) + 1):
        if dressed[at : at + len(bare)] == bare:
            return dressed[:at], dressed[at + len(bare) :]
    return [], []
