"""Samples that grow token by token: in a batch of the transformers engine, in requests of vLLM, or
guided by this process on a server's tokens."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.data.thoughts import shared_length
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.gates import Gate
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.decoding.penalties import ending_ids
from rewardsteer.decoding.sample import Aborted, Encoded, FinishReason, Sample, Stop
from rewardsteer.decoding.sampling import TokenLogprob, ranked


class TokenSample(Sample):
    """A sample whose engine gives it tokens one by one.

    Attributes:
        name: the request's id.
        guide, weight, gate: the guide of its next-token scores, the guide's weight, and its gate.
        growing: whether it wants more tokens.
        limit: number of tokens at which the extension ends.
        stop, begin: where the extension ends earlier, and the number of tokens before it.
        revised: whether its tokens were changed since the last forward pass.
        held: the policy's cached states of it, while it has no row.
        error: why it cannot go on.
        future: resolved when the extension ends.
    """

    def __init__(
        self, engine: Any, prompt: Encoded, index: int, config: DecodingConfig, *,
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
        self.stop = Stop()
        self.held: Any = None
        self.error: Exception | None = None
        self.future: asyncio.Future[None] | None = None

    # --- what programs ask ----------------------------------------------------------------------

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        longest = self.config.max_new_tokens
        self.begin = len(self.token_ids)
        self.limit = longest if tokens is None else min(self.begin + tokens, longest)
        if self.aborted:
            raise Aborted
        if self.finish_reason is not None or self.limit <= self.begin:
            return
        self.stop, self.growing = stop or Stop(), True
        self.future = asyncio.get_running_loop().create_future()
        self.engine.grow(self)
        try:
            await self.future
        except asyncio.CancelledError:
            self.abort()
            raise

    def revise(
        self, token_ids: Sequence[int], finish_reason: FinishReason | None = None,
        stop_reason: int | str | None = None, logprobs: Sequence[TokenLogprob] | None = None,
    ) -> None:
        """Replace the tokens."""
        self.gate.forget(shared_length(self.token_ids, token_ids))
        super().revise(token_ids, finish_reason, stop_reason, logprobs)
        self.revised = True

    def fork(self, index: int, rng: random.Random) -> "TokenSample":
        other = type(self)(
            self.engine, self.prompt, index, self.config, rng=rng, guide=self.guide,
            weight=self.weight, top=self.top, origin=self,
        )
        self._copied_to(other)
        other.gate = self.gate.copy(other.gate.name)
        other.held = self.engine.hold(self)
        return other

    def abort(self) -> None:
        if self.aborted:
            return
        self.aborted, self.growing = True, False
        self.engine.leave(self)
        self.held = None
        self._resolve(Aborted())

    # --- what the batch tells -------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it is finished, failed or aborted."""
        return self.finish_reason is not None or self.error is not None or self.aborted

    def record(self, token: int, found: Mapping[int, float]) -> None:
        """Record the log-probability of a drawn token, if requested. ``found`` has those of this
        token and the likeliest ones, by token id."""
        if self.log_probability is not None:
            self.log_probability += found[token]
        if self.top is not None:
            self.logprobs.append(TokenLogprob(found[token], ranked(found, self.top)))

    def add(self, token: int) -> None:
        """Append a drawn token. If a check after it raises, this sample fails alone."""
        # The held states lack the new token.
        self.held = None
        self.token_ids.append(token)
        try:
            self._judge(token)
        except Exception as error:
            self.error = error
        if self.finish_reason is not None or self.error is not None:
            self.growing = False

    def _judge(self, token: int) -> None:
        """Decide whether the last token ends the response or, if not, the extension."""
        length, separator = len(self.token_ids), self.stop.text
        if token in self.ending:
            self.finish_reason, self.stop_reason = "stop", token
        elif stop := self._write():
            self.finish_reason, self.stop_reason = "stop", stop
        elif length >= self.config.max_new_tokens:
            self.finish_reason = "length"
        elif length >= self.limit or (separator and self._has(separator)):
            self.growing = False
        # The rest of the text is a character that stays incomplete, and may end a stop string.
        if self.finish_reason is not None and (stop := self._write_rest()):
            self.finish_reason, self.stop_reason = "stop", stop

    def _has(self, separator: str) -> bool:
        """Whether the last token completes a separator within this extension."""
        begin = max(self.begin, len(self.token_ids) - len(separator))
        return separator in "".join(map(self.engine.token_text, self.token_ids[begin:]))

    def _write(self) -> str:
        """Update the text, if there is a listener or a stop string; returns the stop string that
        has ended it, or ""."""
        if self._listener is None and not self.config.stop:
            return ""
        begin = len(self.token_ids) - 1 if self._detokenizer is not None else 0
        detokenizer = self._following()
        for end in range(begin, len(self.token_ids)):
            self._tell(detokenizer.add(self.token_ids[: end + 1]))
        return detokenizer.stop

    def tell(self) -> None:
        """Resolve the future: the extension has ended, and the program continues."""
        self.growing = False
        self._resolve(self.error)

    def _resolve(self, error: Exception | None) -> None:
        if self.future is None or self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)
            # Retrieved: Python would print it where no program waits any more.
            self.future.exception()

    def unsure(self, entropy: float) -> bool:
        """Whether the extension ends before a token with this entropy, see `Stop`."""
        enough = len(self.token_ids) - self.begin >= max(1, self.stop.least)
        return self.stop.entropy is not None and entropy >= self.stop.entropy and enough
