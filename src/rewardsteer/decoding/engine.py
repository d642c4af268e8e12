"""The interface of engines, which run a policy.

    sample = engine.start(prompt, index, config, rng=rng)
    await sample.extend(32)
    await sample.extend(stop=Stop(text="\\n"))
    sample.abort()

A `Sample` is one unfinished response. Many samples of many prompts are extended at once, and the
engine batches those that wait. The draws of a sample depend on its prompt's id, its index and the
seed alone, never on what else is in the batch. Everything happens on one event loop
(`rewardsteer.decoding.running`).
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.detokenizer import IncrementalDetokenizer, response_text
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.likelihoods import Likelihoods
from rewardsteer.decoding.policy import stop_ids
from rewardsteer.decoding.running import Activity
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.records import Cost, Prompt

Ability = Literal[
    "logits", "candidates", "token_ids", "extend", "abort", "logprobs", "likelihoods", "entropy",
    "prefix_cache",
]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Encoded:
    """A prompt as an engine takes it.

    Attributes:
        id: of the request; draws are made from it.
        token_ids: as the policy reads them, at least one; none for an engine that writes prompts
            itself.
        template: what it puts around responses their texts are without.
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
        text: after a token whose text contains it; "": nowhere.
        entropy: before a token of which the policy is so unsure: entropy of its distribution at
            temperature 1, in nats …
        least: … once the extension has so many tokens.
    """

    text: str = ""
    entropy: float | None = None
    least: int = 0


class Aborted(Exception):  # noqa: N818
    """A sample was given up while its program went on; ends what still waits for it."""


class Sample:
    """Base of all engines' samples: one response in the making.

    Args:
        engine: that grows it.
        prompt: that it responds to.
        index: which of the samples of its prompt this is.
        config: how it is drawn, and its greatest length.
        rng: its own random numbers.
        log_probabilities: whether `log_probability` is wanted.
        top: how many of the likeliest tokens `logprobs` names; None: it is not wanted.
        origin: the sample that it was forked from.

    Attributes:
        token_ids: generated so far, end-of-text included; empty where an engine knows none.
        finish_reason: None before it has ended.
        stop_reason: the token, or the string, that stopped it.
        log_probability: of the tokens under the policy, at temperature 1 over the whole vocabulary,
            summed; None where nobody asked.
        logprobs: of each token, with those of the likeliest, where they were asked for.
        cost: so far.
        aborted: nobody needs it any more.
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
        self._listener: Callable[[str], None] | None = None
        self._detokenizer: IncrementalDetokenizer | None = None

    @property
    def length(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids)

    @property
    def text(self) -> str:
        """Of the response so far, without the template's frame and cut at a stop string."""
        if isinstance(self.stop_reason, str):
            return self._cut().text
        ids = self.token_ids[: len(self.token_ids) - len(self.stop_token)]
        return response_text(
            self.engine.tokenizer, self.prompt.token_ids, ids, self.prompt.template
        )

    @property
    def response_ids(self) -> Sequence[int]:
        """Tokens of the response as it is given out: cut at a stop string, with `stop_token`."""
        if isinstance(self.stop_reason, str) and self.token_ids:
            return self._cut().kept(self.token_ids)
        return self.token_ids

    @property
    def stop_token(self) -> Sequence[int]:
        """The token that ended it; none where it was cut off, by a stop string too."""
        return self.token_ids[-1:] if isinstance(self.stop_reason, int) else ()

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        """Add up to so many tokens (None: as many as the settings allow).

        Raises:
            RewardsteerError: this sample cannot go on; others can.
            Aborted: it was given up.
        """
        raise NotImplementedError

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have new text told once further tokens cannot change it."""
        self._listener = listener

    def revise(
        self, token_ids: Sequence[int], finish_reason: FinishReason | None = None,
        stop_reason: int | str | None = None,
    ) -> None:
        """Go on from other tokens; most often, take some back."""
        self.token_ids = list(token_ids)
        self.finish_reason, self.stop_reason = finish_reason, stop_reason
        self._detokenizer = None
        del self.logprobs[len(self.token_ids) :]

    def take_over(self, other: "Sample") -> None:
        """Go on from the tokens of another sample, or end as it has."""
        self.revise(other.token_ids, other.finish_reason, other.stop_reason)

    def fork(self, index: int, rng: random.Random) -> "Sample":
        """Another sample that goes on from here, with draws of its own."""
        raise NotImplementedError

    def abort(self) -> None:
        """Nobody needs it any more; it holds nothing from now on."""
        raise NotImplementedError

    def _copied_to(self, other: "Sample") -> None:
        """Give a fork what was generated so far."""
        other.token_ids, other.logprobs = list(self.token_ids), list(self.logprobs)
        other.log_probability = self.log_probability

    def _following(self) -> IncrementalDetokenizer:
        """The text of the tokens, cut at stop strings."""
        if self._detokenizer is None:
            self._detokenizer = IncrementalDetokenizer(
                self.engine.tokenizer, self.prompt.token_ids, self.prompt.template,
                self.config.stop, include_stop=self.config.include_stop_str_in_output,
                min_tokens=self.config.min_tokens,
            )
        return self._detokenizer

    def _cut(self) -> IncrementalDetokenizer:
        """The same, with all tokens."""
        detokenizer = self._following()
        detokenizer.add(self.token_ids)
        return detokenizer

    def _tell(self, piece: str) -> None:
        if piece and self._listener is not None:
            self._listener(piece)


class Engine:
    """Base of all engines: what runs a policy.

    Args:
        tokenizer: the policy's; None where it is not known.
        settings: the policy's ``generation_config``; None: it has none.

    Attributes:
        name: for messages.
        abilities: what it can do; `rewardsteer.decoding.engines.registry.MEANINGS` says what each
            means.
        stride: tokens after which looking at a growing sample costs little.
        holds_guides: the reward model of a guide runs inside the engine, which loads it by itself.
        writes_prompts: prompts are written by the engine and not on this side.
        by_name: policies are names at an address.
        model_name: of the policy where another process runs it; "" elsewhere.
        stop_ids: tokens that end a response.
        position_limit: longest row that the policy can read; None: it has no limit.
        readable: token ids that the policy has an embedding for.
        activity: told of what samples ask and are told.
        on_failure: told of failures that one sample alone has; None: they end the run.
    """

    name: str
    abilities: Collection[Ability] = frozenset()
    stride = 1
    holds_guides = writes_prompts = by_name = False
    model_name = ""
    position_limit: int | None = None
    readable = 0

    def __init__(self, tokenizer: Any, settings: Any = None) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.stop_ids = frozenset[int]() if tokenizer is None else stop_ids(settings, tokenizer)
        self.activity = Activity()
        self.on_failure: Callable[[Exception], None] | None = None
        self._texts: dict[int, str] = {}

    def complete(self, config: DecodingConfig) -> DecodingConfig:
        """The settings of a run with nothing left open that this side decides."""
        return with_defaults(config, self.settings)

    def check(self, method: Any, config: DecodingConfig) -> None:
        """Raise `ConfigError` on what it cannot do for a method, besides its abilities."""

    def begin(self, method: Any, config: DecodingConfig, longest: int) -> None:
        """Get ready for the samples of a run, the longest of so many tokens with its prompt."""

    def bound(self, cache_tokens: int, guides: int) -> None:
        """Decode no more together, where that is decided here: tokens in caches and guides."""

    def token_text(self, token: int) -> str:
        """A token's own text; asked again and again about the same few, so remembered."""
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return self._texts[token]

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, rng: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> Sample:
        """A sample without any token yet; see `Sample`. The guide acts on its next-token scores;
        None: the policy alone."""
        raise NotImplementedError

    def likelihoods(self, prompt: Encoded) -> Likelihoods:
        """How likely the policy makes given tokens after a prompt; has the ability
        ``likelihoods``."""
        raise NotImplementedError

    async def room(self) -> None:
        """Return once another prompt can be begun without waiting behind others."""
        raise NotImplementedError

    async def close(self) -> None:
        """End; what runs is aborted."""
        raise NotImplementedError


@dataclass(frozen=True)
class Outcome:
    """What a strategy answers with.

    Attributes:
        sample: the response.
        reward: of it, where the strategy knows one.
        details: what else it tells of its work, by name.
    """

    sample: Sample
    reward: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
