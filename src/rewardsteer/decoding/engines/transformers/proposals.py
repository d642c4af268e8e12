"""Drafts: tokens that a row may go on with, to be verified several at a time."""

from collections.abc import Sequence

# The longest run of last tokens that is looked up.
_LONGEST = 3


def from_itself(tokens: Sequence[int], count: int) -> list[int]:
    """What followed the last tokens where they stood before: prompt lookup. What comes in circles
    goes on in circles.

    The longest run of up to three last tokens that occurs earlier is taken, at its last
    occurrence; none where no token occurs twice.

    Args:
        tokens: prompt and response so far.
        count: most tokens to propose.
    """
    if count < 1:
        return []
    for size in range(min(_LONGEST, len(tokens) - 1), 0, -1):
        run = list(tokens[-size:])
        for begin in range(len(tokens) - size - 1, -1, -1):
            if list(tokens[begin : begin + size]) == run:
                text, at = list(tokens), begin + size
                for _ in range(count):
                    text.append(text[at])
                    at += 1
                return text[len(tokens) :]
    return []
