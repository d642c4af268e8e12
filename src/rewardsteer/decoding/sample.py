"""Samples: the unfinished and finished responses that engines generate."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewardsteer.data.template import Template
from rewardsteer.data.thoughts import shared_length
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.detokenizer import IncrementalDetokenizer, response_text
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.records import Cost, Prompt

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Encoded:
    """A prompt as an engine takes it.

    Attributes:
        id: the request's id, from which random draws are seeded.
        token_ids: as the policy reads them, at least one; none for an engine that writes prompts
            itself.
        template: its text around responses is removed from `Sample.text`.
        given: text or conversation, for an engine that writes prompts itself and for reward models
            that read texts.
    """

    id: str
    token_ids: Sequence[int] = ()
    template: Template = field(default_factory=lambda: Template(kind="text"))
    given: Prompt = ""


@dataclass(frozen=True)
class Stop:
    """Where an extension ends, besides its length and the response's own end.

    Attributes:
        text: after a token that completes this string; "": nowhere.
        entropy: before a token where the entropy of the policy's distribution (nats, temperature 1)
            is at least this …
        least: … and the extension has at least this many tokens.
    """

    text: str = ""
    entropy: float | None = None
    least: int = 0


class Aborted(Exception):  # noqa: N818
    """Raised for a program that waits for a sample which was aborted."""


class Sample:
    """Base of all engines' samples: one unfinished or finished response.

    Args:
        engine: generates the sample.
        prompt: the prompt.
        index: number of this sample among those of its prompt.
        config: sampling settings and the maximum length.
        rng: its own random number generator.
        log_probabilities: whether `log_probability` is computed.
        top: how many of the likeliest tokens `logprobs` lists; None: `logprobs` stays empty.
        origin: the sample that it was forked from.

    Attributes:
        token_ids: generated so far, end-of-text included; empty where an engine knows none.
        finish_reason: None before it has ended.
        stop_reason: the token, or the string, that stopped it.
        log_probability: of the tokens under the policy, at temperature 1 over the whole vocabulary,
            summed; None if not requested.
        logprobs: log-probabilities of each token and of the likeliest ones, if requested.
        cost: so far.
        aborted: whether the sample was given up.
        drawable: only token ids below this are drawn, because another policy continues the sample;
            None: all of the policy's.
    """

    def __init__(
        self, engine: Any, prompt: Encoded, index: int, config: DecodingConfig, *,
        rng: random.Random, log_probabilities: bool = False, top: int | None = None,
        origin: "Sample | None" = None,
    ) -> None:
        self.engine, self.prompt, self.index, self.config = engine, prompt, index, config
        self.rng, self.top, self.origin = rng, top, origin
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.log_probability: float | None = 0.0 if log_probabilities else None
        self.logprobs: list[TokenLogprob] = []
        self.cost = Cost()
        self.aborted = False
        self.drawable: int | None = None
        self._listener: Callable[[str], None] | None = None
        self._detokenizer: IncrementalDetokenizer | None = None

    @property
    def length(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids)

    @property
    def text(self) -> str:
        """The response's text so far, without the template's frame and cut at a stop string."""
        if isinstance(self.stop_reason, str):
            return self._cut().text
        return self._decoded()[1]

    @property
    def response_ids(self) -> Sequence[int]:
        """Token ids of the returned response: cut at a stop string, with `stop_token`."""
        if isinstance(self.stop_reason, str) and self.token_ids:
            return self._cut().kept(self.token_ids)
        return self.token_ids

    @property
    def stop_token(self) -> Sequence[int]:
        """The token that ended the response; empty if a stop string or the length did."""
        return self.token_ids[-1:] if isinstance(self.stop_reason, int) else ()

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        """Generate up to ``tokens`` more tokens (None: as many as the settings allow).

        Raises:
            RewardsteerError: this sample cannot go on; others can.
            Aborted: it was given up.
        """
        raise NotImplementedError

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call the listener with new text as soon as further tokens cannot change it."""
        self._listener = listener

    def revise(
        self, token_ids: Sequence[int], finish_reason: FinishReason | None = None,
        stop_reason: int | str | None = None, logprobs: Sequence[TokenLogprob] | None = None,
    ) -> None:
        """Replace the tokens, most often to remove some at the end. ``logprobs`` are those of the
        new tokens; None: those of the tokens that stay are kept."""
        del self.logprobs[shared_length(self.token_ids, token_ids) :]
        if logprobs is not None:
            self.logprobs = list(logprobs)
        self.token_ids = list(token_ids)
        self.finish_reason, self.stop_reason = finish_reason, stop_reason
        self._detokenizer = None

    def take_over(self, other: "Sample") -> None:
        """Take the tokens and the finish reason of another sample."""
        self.revise(other.token_ids, other.finish_reason, other.stop_reason)

    def fork(self, index: int, rng: random.Random) -> "Sample":
        """Another sample that continues from these tokens, with draws of its own."""
        raise NotImplementedError

    def abort(self) -> None:
        """Give the sample up and free what it holds."""
        raise NotImplementedError

    def _copied_to(self, other: "Sample") -> None:
        """Copy what was generated so far to a fork."""
        other.token_ids, other.logprobs = list(self.token_ids), list(self.logprobs)
        other.log_probability, other.drawable = self.log_probability, self.drawable

    def _following(self) -> IncrementalDetokenizer:
        """The detokenizer of this sample, which cuts at stop strings."""
        if self._detokenizer is None:
            self._detokenizer = IncrementalDetokenizer(
                self.engine.tokenizer, self.prompt.token_ids, self.prompt.template,
                self.config.stop, include_stop=self.config.include_stop_str_in_output,
                min_tokens=self.config.min_tokens,
            )
        return self._detokenizer

    def _cut(self) -> IncrementalDetokenizer:
        """The detokenizer after all tokens so far."""
        detokenizer = self._following()
        detokenizer.add(self.token_ids)
        return detokenizer

    def _decoded(self) -> tuple[Sequence[int], str]:
        """The tokens of the text, and the text that they are as a whole."""
        ids = self.token_ids[: len(self.token_ids) - len(self.stop_token)]
        return ids, response_text(
            self.engine.tokenizer, self.prompt.token_ids, ids, self.prompt.template
        )

    def _write_rest(self) -> str:
        """Complete the text of a response that has ended, where it was written while it grew;
        returns the stop string that has cut it, or ""."""
        written = self._detokenizer
        if written is None:
            return ""
        if not written.stopped:
            self._tell(written.finish(*self._decoded()))
        return written.stop

    def _tell(self, piece: str) -> None:
        if piece and self._listener is not None:
            self._listener(piece)
