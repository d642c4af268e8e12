"""Text of tokens that come one at a time."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from rewardsteer.data.text_ids import plain_text

# Decoded form of an incomplete character.
UNFINISHED = "\ufffd"
_INVALID = "Invalid prefix"


class _Stream:
    """Text of tokens that come one at a time, where the tokenizer is not one of `tokenizers`."""

    def __init__(self, tokenizer: Any, context: Sequence[int]) -> None:
        self._tokenizer, self._ids = tokenizer, list(context)
        self._given = len(plain_text(self._ids, tokenizer))

    def step(self, token: int) -> str:
        """New text after another token; none while a character is unfinished."""
        self._ids.append(token)
        text: str = plain_text(self._ids, self._tokenizer)
        if text.endswith(UNFINISHED):
            return ""
        piece, self._given = text[self._given :], max(self._given, len(text))
        return piece


class _FastStream:
    """As `_Stream`, by `tokenizers.decoders.DecodeStream`, which decodes only the last few
    tokens."""

    def __init__(self, backend: Any, context: Sequence[int]) -> None:
        self._backend = backend
        self._stream = DecodeStream(ids=list(context), skip_special_tokens=True)
        # Tokens whose text has not come yet.
        self._held: list[int] = []

    def step(self, token: int) -> str:
        self._held.append(token)
        try:
            piece: str = self._stream.step(self._backend, token) or ""
        except Exception as error:  # The library raises nothing more specific.
            if not str(error).startswith(_INVALID):
                raise
            # Bytes that are no character, which change how those before them are decoded.
            piece = self._backend.decode(self._held, skip_special_tokens=True)
            self._stream = DecodeStream(ids=self._held, skip_special_tokens=True)
        if piece:
            self._held = []
        return piece


def open_stream(tokenizer: Any, context: Sequence[int]) -> _Stream | _FastStream:
    """A stream behind the tokens of a context; its method ``step`` takes one token at a time."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return _Stream(tokenizer, context) if backend is None else _FastStream(backend, context)
