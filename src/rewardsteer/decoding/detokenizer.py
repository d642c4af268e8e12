"""A response's text while it grows, cut at stop strings.

Tokens come one at a time, text does not: a character may lie in several tokens, and some tokenizers
write a token according to the one before it. So text is emitted only when further tokens cannot
change it, and never while it may be part of a stop string.
"""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import bare_ids, plain_text
from rewardsteer.decoding.token_stream import UNFINISHED, open_stream


class IncrementalDetokenizer:
    """The text of one response.

    Args:
        tokenizer: the policy's.
        template: its text around responses is removed.
        include_stop: keep the stop string that ends the response.
        min_tokens: stop strings that end within the first ``min_tokens`` tokens are ignored.

    Attributes:
        stopped: whether a stop string has ended the text.
        stop: that stop string; "" before.
    """

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], template: Template, stops: Sequence[str],
        *, include_stop: bool = False, min_tokens: int = 0,
    ) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._include_stop = include_stop
        self._opening, _, self._closing = template.response.partition("{response}")
        self._context = list(prompt_ids)
        if plain_text(self._context, tokenizer).endswith(UNFINISHED):
            # The response begins within a character of the prompt, so it is a text of its own.
            self._context = []
        self._stream = open_stream(tokenizer, self._context)
        self._lead = ""
        self._text = ""
        self._min_tokens, self._unsearched = min_tokens, 0
        self._given = 0
        self._taken = 0
        self.stopped, self.stop = False, ""

    def add(self, token_ids: Sequence[int]) -> str:
        """The newly emitted text, given all tokens so far; sets ``stopped`` at a stop string."""
        new = token_ids[self._taken :]
        self._taken = len(token_ids)
        for token in new:
            self._text += self._stream.step(token)
        if self._taken <= self._min_tokens:
            self._unsearched = len(self._text)
        return self._emit(end=False)

    def finish(self, token_ids: Sequence[int], whole: str) -> str:
        """The rest of the text, given all tokens but end-of-text.

        Args:
            whole: the response's text, decoded as a whole.
        """
        if self.stopped:
            return ""
        piece = self.add(token_ids)
        if not self.stopped and whole.startswith(self.text):
            # Also what an unfinished character at the very end is decoded to.
            self._text, self._opening, self._closing = whole, "", ""
        return piece + self._emit(end=True)

    def kept(self, token_ids: Sequence[int]) -> list[int]:
        """Tokens of the emitted text where a stop string has cut it: all tokens before the cut,
        and, if the cut divides a token, its first part tokenized again."""
        before = plain_text(self._context, self._tokenizer)
        written = self._lead + self.text
        for count in range(len(token_ids), -1, -1):
            some = list(token_ids[:count])
            whole = plain_text([*self._context, *some], self._tokenizer)
            inner = whole[len(before) :] if whole.startswith(before) else whole
            if not written.startswith(inner):
                continue
            rest = written[len(inner) :]
            if rest:
                some += bare_ids(rest, self._tokenizer)
            return some
        raise AssertionError("no token is no text")

    @property
    def text(self) -> str:
        """The text emitted so far."""
        return self._text[: self._given]

    def _emit(self, *, end: bool) -> str:
        if self._opening:
            if not end and len(self._text) < len(self._opening):
                return ""
            if self._text.startswith(self._opening):
                self._text, self._lead = self._text.removeprefix(self._opening), self._opening
            self._opening = ""
        # A stop string that ends within the first ``min_tokens`` tokens does not count.
        starts = [max(self._given, self._unsearched - len(stop) + 1) for stop in self._stops]
        places = map(self._text.find, self._stops, starts)
        found = [one for one in zip(places, self._stops, strict=True) if one[0] >= 0]
        if found and not self.stopped:
            at, self.stop = min(found, key=lambda one: one[0])
            kept = at + len(self.stop) if self._include_stop else at
            self.stopped, self._text = True, self._text[:kept]
        limit = len(self._text)
        if not end and not self.stopped:
            limit -= self._held_back()
        piece = self._text[self._given : limit]
        self._given = max(self._given, limit)
        return piece

    def _held_back(self) -> int:
        """Number of last characters that may begin a stop string or the template's closing."""
        for length in range(self._longest(), 0, -1):
            tail = self._text[-length:]
            if len(tail) == length and (
                self._closing.startswith(tail)
                or any(stop.startswith(tail) for stop in self._stops)
            ):
                return length
        return 0

    def _longest(self) -> int:
        waiting = len(self._text) - self._given
        return min(waiting, max([len(self._closing), *(len(stop) for stop in self._stops)]))


def response_text(
    tokenizer: Any, prompt_ids: Sequence[int], response_ids: Sequence[int], template: Template
) -> str:
    """A response without what the template puts around it. It is decoded behind its prompt: some
    tokenizers drop the space before a text's first word."""
    before = plain_text(prompt_ids, tokenizer)
    whole = plain_text([*prompt_ids, *response_ids], tokenizer)
    text: str = (
        whole[len(before) :] if whole.startswith(before)
        else plain_text(response_ids, tokenizer)
    )
    opening, _, closing = template.response.partition("{response}")
    return text.removeprefix(opening).removesuffix(closing)
