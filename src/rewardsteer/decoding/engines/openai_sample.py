"""A sample of the openai engine: every extension is a request with all text so far."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import by_id, tokens_read
from rewardsteer.decoding.sample import Aborted, Encoded, FinishReason, Sample, Stop
from rewardsteer.decoding.sampling import TokenLogprob, ranked
from rewardsteer.errors import DataError
from rewardsteer.records import Cost


class OpenAISample(Sample):
    """A sample that a server writes.

    Attributes:
        written: the text that the server has generated so far.
    """

    def __init__(
        self, engine: Any, prompt: Encoded, index: int, config: DecodingConfig, **options: Any
    ) -> None:
        super().__init__(engine, prompt, index, config, **options)
        self.written, self._count = "", 0
        self._request: asyncio.Task[None] | None = None

    @property
    def length(self) -> int:
        return len(self.token_ids) or self._count

    @property
    def text(self) -> str:
        """The response's text so far, without the template's frame and cut at a stop string."""
        if self.token_ids:
            return super().text
        opening, _, closing = self.prompt.template.response.partition("{response}")
        return self.written.removeprefix(opening).removesuffix(closing)

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        left = self.config.max_new_tokens - self.length
        wanted = left if tokens is None else min(tokens, left)
        if self.aborted:
            raise Aborted
        if self.finish_reason is not None or wanted <= 0:
            return
        request = asyncio.get_running_loop().create_task(
            self._grow(wanted, "" if stop is None else stop.text)
        )
        self._request = request
        try:
            await asyncio.wait([request])
        finally:
            # If the program was cancelled, closing the connection tells the server.
            request.cancel()
        if not request.cancelled():
            request.result()

    def revise(
        self, token_ids: Sequence[int], finish_reason: FinishReason | None = None,
        stop_reason: int | str | None = None, logprobs: Sequence[TokenLogprob] | None = None,
    ) -> None:
        """Replace the tokens; only for servers that return token ids."""
        super().revise(token_ids, finish_reason, stop_reason, logprobs)
        self._count = 0

    def fork(self, index: int, rng: random.Random) -> "OpenAISample":
        other = OpenAISample(
            self.engine, self.prompt, index, self.config, rng=rng, top=self.top, origin=self
        )
        self._copied_to(other)
        other.written, other._count = self.written, self._count
        return other

    def abort(self) -> None:
        self.aborted = True
        if self._request is not None:
            self._request.cancel()

    # --- one request ----------------------------------------------------------------------------

    async def _grow(self, wanted: int, separator: str) -> None:
        engine, begin, length = self.engine, len(self.written), self.length
        # Without token ids a reply does not tell separator and end apart: it is searched here.
        seeks = "" if engine.gives_ids else separator
        usage = choice = None
        async with engine.place() as share, aclosing(engine.ask(
            self, wanted, separator, stream=bool(seeks) or self._listener is not None
        )) as replies:
            async for reply in replies:
                usage = reply.usage or usage
                for choice in reply.choices[:1]:
                    self._take(choice, begin, seeks)
                if seeks and seeks in self.written[begin:]:
                    choice = None
                    break
        self._charge(usage, length, begin, share())
        if choice is not None:
            self._end(choice, self.length - length < wanted, separator)
        elif self.length >= self.config.max_new_tokens:
            self.finish_reason = "length"

    def _take(self, choice: Any, begin: int, seeks: str) -> None:
        """Add a reply's text and tokens, up to the token that completes ``seeks``."""
        part = getattr(choice, "message", None) or getattr(choice, "delta", None)
        text = (choice.text if part is None else part.content) or ""
        ids = (choice.model_extra or {}).get("token_ids") or []
        known = None if part is not None else choice.logprobs
        values = [] if known is None else list(known.token_logprobs or [])
        if seeks:
            pieces = [] if known is None else list(known.tokens or [])
            if "".join(pieces) == text:
                pieces = _up_to(seeks, self.written[begin:], pieces)
                values = values[: len(pieces)]
            else:
                pieces = _up_to(seeks, self.written[begin:], [text])
            text = "".join(pieces)
        self.written += text
        self.token_ids += ids
        if self.log_probability is not None:
            self.log_probability += sum(values)
        if self.top is not None and known is not None:
            self.logprobs += [
                TokenLogprob(value, ranked(by_id(best), self.top))
                for value, best in zip(values, known.top_logprobs or [], strict=False)
            ]
        if self._listener is not None:
            self._tell(self._following().add(self.token_ids) if ids else text)

    def _end(self, choice: Any, short: bool, separator: str) -> None:
        """Set the finish reason from the server's; ``short``: it gave less than was wanted."""
        reason = choice.finish_reason
        stopped = (choice.model_extra or {}).get("stop_reason")
        if reason not in ("stop", "length"):
            raise DataError(
                f"The server ended a response to {self.prompt.id!r} for the reason {reason!r} "
                "instead of stop or length."
            )
        separated = separator and stopped == separator and separator not in self.config.stop
        if reason == "stop" and not separated:
            self.finish_reason, self.stop_reason = "stop", stopped
            if stopped is None and self.token_ids:
                self.stop_reason = self.token_ids[-1]
        elif self.length >= self.config.max_new_tokens or (reason == "length" and short):
            # A server whose own limit is reached gives less than was wanted.
            self.finish_reason = "length"
        if self.finish_reason is not None and self._listener is not None and self.token_ids:
            self._write_rest()

    def _charge(self, usage: Any, length: int, begin: int, seconds: float) -> None:
        tokenizer = self.engine.tokenizer
        if self.token_ids:
            new = len(self.token_ids) - length
        elif usage is not None:
            new = int(usage.completion_tokens)
        else:
            new = len(bare_ids(self.written[begin:], tokenizer))
        self._count = length + new
        self.engine.tokens += new
        read = tokens_read(usage, len(self.prompt.token_ids) + length)
        self.cost += Cost(
            new_tokens=new, lm_calls=new, lm_forwards=new, lm_tokens=read + new, seconds=seconds
        )


def _up_to(separator: str, before: str, pieces: list[str]) -> list[str]:
    """The pieces up to the one that completes a separator; a single one, which may be many tokens,
    is cut behind it. ``before`` is the extension's text before them."""
    text = before
    for count, piece in enumerate(pieces, start=1):
        text += piece
        if separator in text:
            if len(pieces) == 1:
                return [text[len(before) : text.index(separator) + len(separator)]]
            return pieces[:count]
    return pieces
