"""A response's text while it grows, cut at stop strings.

Tokens come one at a time, text does not: a character may lie in several tokens, and some tokenizers
write a token according to the one before it. So text is given out once more tokens cannot change
it, and never a part of what may turn out to be a stop string.
"""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.template import Template

# Tokens of context with which new ones are decoded, where the prompt has so many.
_CONTEXT = 6
# What an unfinished character is decoded to.
_UNFINISHED = "\ufffd"


class GrowingText:
    """The text of one response.

    Args:
        tokenizer: the policy's.
        prompt_ids: of the prompt.
        template: what it puts around responses is left out.
        stops: strings that end the response and do not belong to it.
    """

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], template: Template, stops: Sequence[str]
    ) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._opening, _, self._closing = template.response.partition("{response}")
        self._context = list(prompt_ids[-_CONTEXT:])
        self._ids = list(self._context)
        self._lead = ""
        # Tokens from _begin on are decoded; what is before _read is in the text already.
        self._begin, self._read = 0, len(self._ids)
        self._text = ""
        self._given = 0
        self._taken = 0
        self.stopped = False

    def add(self, token_ids: Sequence[int]) -> str:
        """New text that is certain, given all tokens so far; sets ``stopped`` at a stop string."""
        new = token_ids[self._taken :]
        self._taken = len(token_ids)
        for token in new:
            self._ids.append(token)
            self._decode()
        return self._give(end=False)

    def finish(self, token_ids: Sequence[int], whole: str) -> str:
        """The rest of the text, given all tokens but end-of-text.

        Args:
            token_ids: all of them.
            whole: the response's text, decoded as a whole.
        """
        if self.stopped:
            return ""
        piece = self.add(token_ids)
        if not self.stopped and whole.startswith(self.text):
            # Also what an unfinished character at the very end is decoded to.
            self._text, self._opening, self._closing = whole, "", ""
        return piece + self._give(end=True)

    def kept(self, token_ids: Sequence[int]) -> list[int]:
        """Tokens of the text that was given out, where a stop string has cut it: those that lie
        before the cut, and of one that the cut divides the first part written anew."""
        before = self._tokenizer.decode(self._context, **_OPTIONS)
        written = self._lead + self.text
        for count in range(len(token_ids), -1, -1):
            some = list(token_ids[:count])
            whole = self._tokenizer.decode([*self._context, *some], **_OPTIONS)
            inner = whole[len(before) :] if whole.startswith(before) else whole
            if not written.startswith(inner):
                continue
            rest = written[len(inner) :]
            if rest:
                some += self._tokenizer(rest, add_special_tokens=False)["input_ids"]
            return some
        raise AssertionError("no token is no text")

    @property
    def text(self) -> str:
        """What was given out so far."""
        return self._text[: self._given]

    def _decode(self) -> None:
        before = self._tokenizer.decode(self._ids[self._begin : self._read], **_OPTIONS)
        after = self._tokenizer.decode(self._ids[self._begin :], **_OPTIONS)
        if len(after) > len(before) and not after.endswith(_UNFINISHED):
            self._text += after[len(before) :]
            self._begin, self._read = self._read, len(self._ids)

    def _give(self, *, end: bool) -> str:
        if self._opening:
            if not end and len(self._text) < len(self._opening):
                return ""
            if self._text.startswith(self._opening):
                self._text, self._lead = self._text.removeprefix(self._opening), self._opening
            self._opening = ""
        found = [at for at in (self._text.find(stop, self._given) for stop in self._stops)
                 if at >= 0]
        if found and not self.stopped:
            self.stopped = True
            self._text = self._text[: min(found)]
        limit = len(self._text)
        if not end and not self.stopped:
            limit -= self._doubtful()
        piece = self._text[self._given : limit]
        self._given = max(self._given, limit)
        return piece

    def _doubtful(self) -> int:
        """Characters at the end that may be the beginning of what does not belong to the text."""
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


_OPTIONS = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
