"""Where the steps of a response end among its tokens."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.errors import DataError


def step_lengths(
    response: str, ends: Sequence[int], response_ids: Sequence[int], tokenizer: Any, *,
    merge: bool = False,
) -> list[int]:
    """Tokens of a response up to the end of each step, the last one of them included.

    A step ends with the first token that reaches its end, which may hold the beginning of the next
    step too. A step that ends with the text ends with the response, its closing tokens included.

    Args:
        response: the text.
        ends: characters up to the end of each step, ascending.
        response_ids: the response's tokens, as they are read.
        tokenizer: that made them.
        merge: count steps that end with the same token as one; else they are an error.

    Raises:
        DataError: an end lies outside the text or before an earlier one, or two steps end with the
            same token and are not merged.
    """
    found: list[int] = []
    known: dict[int, int] = {}

    def characters(count: int) -> int:
        # Tokens may hold parts of a character, which are decoded as signs that stand for it.
        if count not in known:
            text = tokenizer.decode(
                list(response_ids[:count]), clean_up_tokenization_spaces=False
            )
            known[count] = len(text.lstrip().rstrip("�"))
        return known[count]

    # Templates and tokenizers may leave out the blank before a response.
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
