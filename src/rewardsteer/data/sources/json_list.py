"""Items of a JSON list, one at a time, without loading the whole list."""

import itertools
import json
from collections.abc import Iterator

CHUNK = 1 << 20
_SPACE = " \t\r\n"


class _Text:
    """A text that arrives in pieces, with a current position ``at``."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.buffer, self.at = "", 0

    def next_sign(self) -> str:
        """The next character that is not white space, without consuming it; "" at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def more(self) -> bool:
        """Double the buffered text, so that long items take linear time; False at the end."""
        held = self.buffer[self.at :]
        taken = "".join(itertools.islice(self._pieces, 1 + len(held) // CHUNK))
        self.buffer, self.at = held + taken, 0
        return bool(taken)

    def value(self) -> str:
        """Consume the JSON value at the current position and return its text."""
        decoder = json.JSONDecoder()
        while True:
            try:
                _, end = decoder.raw_decode(self.buffer, self.at)
            except RecursionError as error:
                raise ValueError("it is nested too deeply") from error
            except ValueError:
                if not self.more():
                    raise
                continue
            # A number may continue in the next piece.
            if end == len(self.buffer) and self.more():
                continue
            found = self.buffer[self.at : end]
            self.at = end
            return found


def list_items(pieces: Iterator[str]) -> Iterator[str]:
    """The texts of the items of a JSON list.

    Args:
        pieces: the text; nothing but white space counts as an empty list.

    Raises:
        TypeError: the text holds another JSON value; names its type.
        ValueError: the text is not JSON.
    """
    text = _Text(pieces)
    if not text.next_sign():
        return
    if text.next_sign() != "[":
        raise TypeError(type(json.loads(text.value())).__name__)
    text.at += 1
    sign = text.next_sign()
    while sign != "]":
        yield text.value()
        sign = text.next_sign()
        if sign == ",":
            text.at += 1
            text.next_sign()
        elif sign != "]":
            raise ValueError("expected a comma or the list's end after an item")
    text.at += 1
    if text.next_sign():
        raise ValueError("something follows the list")
