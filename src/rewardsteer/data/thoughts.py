"""Thoughts in chat templates, and the boundary between prompt and response of such rows.

Chat templates of reasoning models end an opened turn with ``<think>`` and drop the thoughts of past
turns. A response to be learned or rewarded must keep its thought, with one opening tag.
"""

import re
from collections.abc import Sequence
from typing import Any

# The tag at the end of an opened turn, and white space after it.
_OPENED = re.compile(r"<(\w+)>(\s*)\Z")
_THOUGHT = re.compile(r"\s*(?:<\w+>)?(.*)</\w+>", re.DOTALL)
# Markers that templates write as one special token, whether or not the tokenizer has it.
_MARKER = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


def behind(opened: str, response: str) -> str:
    """The response as it continues an opened turn: without the tag that ends the turn's opening."""
    tag = _OPENED.search(opened)
    begun = response.lstrip()
    if tag is None or not begun.startswith(f"<{tag[1]}>"):
        return response
    return begun.removeprefix(f"<{tag[1]}>").removeprefix(tag[2])


def is_lost(whole: str, opened: str, response: str) -> bool:
    """Whether the written conversation lacks the thought of its last response, or has a second
    opening tag.

    Args:
        whole: the conversation with the response, as the chat template writes it.
        opened: the prompt with the assistant's turn opened.
        response: the text that the chat template was given.
    """
    tag = _OPENED.search(opened)
    if tag is not None and f"</{tag[1]}>" in response:
        name = f"<{tag[1]}>"
        # A response that was generated after the tag does not contain it.
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
    """Number of characters of the prompt in a written conversation: those of the opened prompt.
    Where the two differ, their common prefix, without response text or part of a marker."""
    if whole.startswith(opened):
        return len(opened)
    cut = shared_length(opened, whole)
    start = whole.rfind(response.strip())
    if response.strip() and start >= 0:
        cut = min(cut, start)
    return min(marker_begin(whole, cut), marker_begin(opened, cut))


def marker_begin(text: str, at: int) -> int:
    """The beginning of the marker that contains an index of a text; the index itself if none."""
    return next(
        (found.start() for found in _MARKER.finditer(text) if found.start() < at < found.end()), at
    )


def shared_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Length of the common prefix of two sequences (of characters or ids)."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
