"""Samples that grow token by token: in a batch of the transformers engine, in vLLM's requests, or
guided on this side of an address."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rewardsteer.data.thoughts import shared_length
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.detokenizer import response_text
from rewardsteer.decoding.engine import Aborted, Encoded, FinishReason, Sample, Stop
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.gates import Gate
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.decoding.penalties import ending_ids
from rewardsteer.decoding.sampling import TokenLogprob, ranked

_NOWHERE = Stop()


class SampleEngine(Protocol):
    """What a sample asks of its engine; the tokenizer is the policy's."""

    tokenizer: Any
    stop_ids: frozenset[int]

    def grow(self, sample: "TokenSample") -> None:
        """It asks for tokens, up to its limit."""

    def hold(self, sample: "TokenSample") -> Any:
        """What was read of it, for others to go on from; None: nothing need be held."""

    def leave(self, sample: "TokenSample") -> None:
        """It is aborted."""

    def token_text(self, token: int) -> str:
        """A token's own text."""


class TokenSample(Sample):
    """A sample whose engine gives it tokens one by one.

    Attributes:
        name: the request's id.
        guide, weight, gate: act on its next-token scores, how strongly, and when.
        growing: whether it asks for tokens.
        limit: how many tokens it is to have.
        stop, begin: where it is to stop earlier, and the tokens that it had before.
        revised: its tokens were changed since they were read.
        held: what the policy has read of it, while it has no row.
        error: why it cannot go on.
        future: resolved when it has stopped.
    """

    def __init__(
        self, engine: SampleEngine, prompt: Encoded, index: int, config: DecodingConfig, *,
        rng: random.Random, guide: LogitsGuide, weight: Weight, log_probabilities: bool = False,
        top: int | None = None, origin: Sample | None = None,
    ) -> None:
        super().__init__(
            engine, prompt, index, config, rng=rng, log_probabilities=log_probabilities,
            top=top, origin=origin,
        )
        self.name, self.prompt_ids = prompt.id, prompt.token_ids
        self.guide, self.weight = guide, weight
        self.gate = Gate(config, f"{prompt.id}/{index}")
        self.ending = ending_ids(config, engine.stop_ids)
        self.growing = self.revised = False
        self.limit = self.begin = 0
        self.stop = _NOWHERE
        self.held: Any = None
        self.error: Exception | None = None
        self.future: asyncio.Future[None] | None = None

    # --- what programs ask ----------------------------------------------------------------------

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        """Add up to so many tokens."""
        longest = self.config.max_new_tokens
        self.begin = len(self.token_ids)
        self.limit = longest if tokens is None else min(self.begin + tokens, longest)
        if self.aborted:
            raise Aborted
        if self.finish_reason is not None or self.limit <= self.begin:
            return
        self.stop, self.growing = stop or _NOWHERE, True
        self.future = asyncio.get_running_loop().create_future()
        self.engine.grow(self)
        try:
            await self.future
        except asyncio.CancelledError:
            self.abort()
            raise

    def revise(
        self, token_ids: Sequence[int], finish_reason: FinishReason | None = None,
        stop_reason: int | str | None = None,
    ) -> None:
        """Go on from other tokens."""
        self.gate.forget(shared_length(self.token_ids, token_ids))
        super().revise(token_ids, finish_reason, stop_reason)
        self.revised = True

    def fork(self, index: int, rng: random.Random) -> "TokenSample":
        """Another sample that goes on from here."""
        other = type(self)(
            self.engine, self.prompt, index, self.config, rng=rng, guide=self.guide,
            weight=self.weight, top=self.top, origin=self,
        )
        self._copied_to(other)
        other.gate = self.gate.copy(other.gate.name)
        other.held = self.engine.hold(self)
        return other

    def abort(self) -> None:
        """Nobody needs it any more."""
        if self.aborted:
            return
        self.aborted, self.growing = True, False
        self.engine.leave(self)
        self.held = None
        if self.future is not None and not self.future.done():
            self.future.set_exception(Aborted())
            # Looked at, so that nobody is told of it where none waits any more.
            self.future.exception()

    # --- what the batch tells -------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing of it will be asked for any more, as things stand."""
        return self.finish_reason is not None or self.error is not None or self.aborted

    def record(self, token: int, found: Mapping[int, float]) -> None:
        """Keep a drawn token's log-probability, where it is wanted, of those that an engine names:
        the token's own and the likeliest ones'."""
        if self.log_probability is not None:
            self.log_probability += found[token]
        if self.top is not None:
            self.logprobs.append(TokenLogprob(found[token], ranked(found, self.top)))

    def add(self, token: int) -> None:
        """A token was drawn. What is asked after it may raise: then this sample fails alone."""
        # What was held of it is of fewer tokens.
        self.held = None
        self.token_ids.append(token)
        try:
            self._judge(token)
        except Exception as error:
            self.error = error
        if self.finish_reason is not None or self.error is not None:
            self.growing = False

    def _judge(self, token: int) -> None:
        """Whether the sample ends, or stops for now, with its last token."""
        separator = self.stop.text
        if token in self.ending:
            self.finish_reason, self.stop_reason = "stop", token
        elif self._writes() or len(self.token_ids) >= self.config.max_new_tokens:
            self.finish_reason = "length"
        elif len(self.token_ids) >= self.limit or (separator and self._has(separator)):
            self.growing = False
        if self.finish_reason is not None:
            self._end()

    def _has(self, separator: str) -> bool:
        """Whether the last token completes a separator within this extension."""
        begin = max(self.begin, len(self.token_ids) - len(separator))
        return separator in "".join(map(self.engine.token_text, self.token_ids[begin:]))

    def _writes(self) -> bool:
        """Follow the text where somebody wants it, or stop strings may end it; whether one has."""
        if self._listener is None and not self.config.stop:
            return False
        begin = len(self.token_ids) - 1 if self._detokenizer is not None else 0
        detokenizer = self._following()
        for end in range(begin, len(self.token_ids)):
            self._tell(detokenizer.add(self.token_ids[: end + 1]))
        return detokenizer.stopped

    def _end(self) -> None:
        """Give out the rest of the text, in which a stop string may be found after all."""
        written = self._detokenizer
        if written is None:
            return
        ids = self.token_ids[: len(self.token_ids) - len(self.stop_token)]
        whole = response_text(
            self.engine.tokenizer, self.prompt_ids, ids, self.prompt.template
        )
        self._tell(written.finish(ids, whole))
        if written.stopped:
            self.finish_reason, self.stop_reason = "stop", written.stop

    def tell(self) -> None:
        """It has stopped, for now or for good: its program goes on."""
        self.growing = False
        if self.future is None or self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            self.future.exception()
        else:
            self.future.set_result(None)

    def unsure(self, entropy: float) -> bool:
        """Whether it stops before its next token, which the policy draws with this entropy."""
        enough = len(self.token_ids) - self.begin >= max(1, self.stop.least)
        return self.stop.entropy is not None and entropy >= self.stop.entropy and enough
