"""What decoding asks of whatever runs a policy: three engines, one interface.

    sample = engine.start(prompt, index, config)
    await sample.extend(32)
    await sample.extend(stop=Stop(text="\\n"))
    sample.abort()

A `Sample` is one response in the making. Many are extended at once, of many prompts; the engine
batches whatever waits. What a sample draws depends on its prompt's id, its index and the seed
alone, never on what else is in the batch. Everything happens on one event loop
(`rewardsteer.decoding.running`).
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.decoding.settling import Activity
from rewardsteer.records import Cost, Prompt

Ability = Literal[
    "logits", "token_ids", "extend", "abort", "logprobs", "entropy", "prefix_cache",
]


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


class Sample(Protocol):
    """One response in the making.

    Attributes:
        prompt: that it responds to.
        index: which of the samples of its prompt this is.
        token_ids: generated so far, end-of-text included; empty where an engine knows none.
        length: how many tokens these are.
        text: of the response so far, without the template's frame and cut at a stop string.
        finish_reason: ``stop`` or ``length`` once it has ended; None before.
        stop_reason: the token, or the string, that stopped it.
        log_probability: of the tokens under the policy, at temperature 1 over the whole vocabulary,
            summed; None where nobody asked.
        logprobs: of each token, with those of the likeliest, where they were asked for.
        cost: so far.
        aborted: nobody needs it any more.
    """

    cost: Cost
    aborted: bool
    finish_reason: Literal["stop", "length"] | None
    stop_reason: int | str | None
    log_probability: float | None
    logprobs: list[TokenLogprob]
    prompt: Encoded
    index: int
    token_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens generated so far."""

    @property
    def origin(self) -> "Sample | None":
        """What it was forked from."""

    @property
    def text(self) -> str:
        """Generated so far."""

    @property
    def response_ids(self) -> Sequence[int]:
        """Tokens of the response as it is given out: without a stop string, and with
        `stop_token`."""

    @property
    def stop_token(self) -> Sequence[int]:
        """The token that ended it; none where it was cut off, by a stop string too."""

    async def extend(self, tokens: int | None = None, *, stop: Stop | None = None) -> None:
        """Add up to so many tokens (None: as many as the settings allow).

        Raises:
            RewardsteerError: this sample cannot go on; others can.
            Aborted: it was given up.
        """

    def listen(self, told: Callable[[str], None]) -> None:
        """Have new text told once further tokens cannot change it."""

    def revise(self, token_ids: Sequence[int], finish_reason: Any = None) -> None:
        """Go on from other tokens; most often, take some back."""

    def fork(self, index: int, draws: random.Random) -> "Sample":
        """Another sample that goes on from here, with draws of its own."""

    def abort(self) -> None:
        """Nobody needs it any more; it holds nothing from now on."""


class Engine(Protocol):
    """What runs a policy.

    Attributes:
        name: of the engine, for messages.
        tokenizer: the policy's; None where it is not known.
        stop_ids: tokens that end a response.
        activity: told of what samples ask and are told.
        stride: tokens after which looking at a growing sample costs little.
    """

    name: str
    tokenizer: Any
    stop_ids: frozenset[int]
    stride: int
    activity: Activity

    @property
    def abilities(self) -> Collection[Ability]:
        """What it can do. ``logits``: guides act in it; ``token_ids``: samples have those of the
        policy; ``extend``: it goes on with a text; ``abort``; ``logprobs``: of the tokens drawn;
        ``entropy``: it stops where the policy is unsure; ``prefix_cache``: to go on reads nothing
        anew."""

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, draws: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> Sample:
        """A sample without any token yet.

        Args:
            prompt: what it responds to.
            index: its number.
            config: how it is drawn, and its greatest length.
            draws: its own random numbers.
            guide: acts on its next-token scores; None: the policy alone.
            log_probabilities: whether `Sample.log_probability` is wanted.
            top: how many of the likeliest tokens `Sample.logprobs` names; None: it is not wanted.
        """

    async def room(self) -> None:
        """Return once another prompt can be begun without waiting behind others."""

    async def close(self) -> None:
        """End; what runs is aborted."""


@dataclass(frozen=True)
class Outcome:
    """What a strategy answers with.

    Attributes:
        sample: the response.
        reward: of it, where the strategy knows one.
    """

    sample: Sample
    reward: float | None = None
