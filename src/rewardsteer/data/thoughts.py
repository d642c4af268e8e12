"""Chat templates that open a thought or leave it out, and where such rows divide.

Reasoning models' templates end an opened turn with ``<think>``, and drop the thoughts of turns that
are over. A response that is to be learnt or rewarded keeps its thought, opened once.
"""

import re
from collections.abc import Sequence
from typing import Any

# The tag, as it stands at the end of an opened turn, and blanks behind it.
_OPENED = re.compile(r"<(\w+)>(\s*)\Z")
_THOUGHT = re.compile(r"\s*(?:<\w+>)?(.*)</\w+>", re.DOTALL)
# What templates write as one special token, whether or not the tokenizer has it.
_MARKER = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


def behind(opened: str, response: str) -> str:
    """A response as it goes on behind an opened turn: without the tag that the turn ends with."""
    tag = _OPENED.search(opened)
    begun = response.lstrip()
    if tag is None or not begun.startswith(f"<{tag[1]}>"):
        return response
    return begun.removeprefix(f"<{tag[1]}>").removeprefix(tag[2])


def is_lost(whole: str, opened: str, response: str) -> bool:
    """Whether a conversation is written without the thought of its last response, or with another
    tag beside it.

    Args:
        whole: with the response, as the chat template writes it.
        opened: the prompt with the assistant's turn opened.
        response: what was given.
    """
    tag = _OPENED.search(opened)
    if tag is not None and f"</{tag[1]}>" in response:
        name = f"<{tag[1]}>"
        # What a model wrote behind the tag has no tag of its own.
        own = response.lstrip().startswith(name)
        once = whole.count(name) < opened.count(name) + max(response.count(name), 1)
        return not own or not once or not _written(response, whole, opened)
    thought = _THOUGHT.match(response)
    return (
        thought is not None and not _written(response, whole, opened)
        and not _written(thought[1], whole, opened)
    )


def _written(text: str, whole: str, opened: str) -> bool:
    text = text.strip()
    return not text or whole.count(text) > opened.count(text)


def boundary(whole: str, opened: str, response: str) -> int:
    """How many characters of a written conversation are the prompt: those of the opened turn; where
    it goes on otherwise, what both begin with, but none of the response and no part of a marker."""
    if whole.startswith(opened):
        return len(opened)
    cut = shared_length(opened, whole)
    start = whole.rfind(response.strip())
    if response.strip() and start >= 0:
        cut = min(cut, start)
    return min(marker_begin(whole, cut), marker_begin(opened, cut))


def marker_begin(text: str, at: int) -> int:
    """Where the marker begins that a place in a text falls into; the place, where it does not."""
    return next(
        (found.start() for found in _MARKER.finditer(text) if found.start() < at < found.end()), at
    )


def shared_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items (characters, ids) two sequences begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
