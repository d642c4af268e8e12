"""Positions of the ends of a response's steps, in tokens."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.text_ids import plain_text
from rewardsteer.errors import DataError


def step_lengths(
    response: str, ends: Sequence[int], response_ids: Sequence[int], tokenizer: Any, *,
    merge: bool = False,
) -> list[int]:
    """Number of response tokens up to and including the last token of each step.

    The last token of a step is the first one that reaches the step's end; it may also hold the
    beginning of the next step. A step at the end of the text includes the closing tokens.

    Args:
        response: the text.
        ends: characters up to the end of each step, ascending.
        response_ids: the response's tokens.
        tokenizer: the one that made them.
        merge: count steps that end with the same token as one; otherwise they are an error.

    Raises:
        DataError: an end lies outside the text or before an earlier one, or two steps end with the
            same token and are not merged.
    """
    found: list[int] = []
    known: dict[int, int] = {}

    def characters(count: int) -> int:
        # A token may hold part of a character, which decodes to a replacement character.
        if count not in known:
            text = plain_text(response_ids[:count], tokenizer, special=True)
            known[count] = len(text.lstrip().rstrip("�"))
        return known[count]

    # Templates and tokenizers may drop the white space before a response.
    blank = len(response) - len(response.lstrip())
    for number, end in enumerate(ends, start=1):
        if not 0 < end <= len(response) or (number > 1 and end <= ends[number - 2]):
            raise DataError(f"Step {number} ends at character {end} of {len(response)}.")
        low, high = found[-1] if found else 1, len(response_ids)
        if end < len(response.rstrip()):
            while low < high:
                middle = (low + high) // 2
                if characters(middle) >= end - blank:
                    high = middle
                else:
                    low = middle + 1
        if found[-1:] != [high]:
            found.append(high)
        elif not merge:
            raise DataError(
                f"Step {number} ends with the same token as the step before it; leave the "
                "shorter one out."
            )
    return found
