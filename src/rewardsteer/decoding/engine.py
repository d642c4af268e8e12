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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.likelihoods import Likelihoods
from rewardsteer.decoding.policy import stop_ids
from rewardsteer.decoding.running import Activity
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.models.known_ids import id_count

Ability = Literal[
    "logits", "candidates", "token_ids", "extend", "abort", "logprobs", "likelihoods", "entropy",
    "prefix_cache",
]


class Engine:
    """Base of all engines, which run a policy.

    Args:
        tokenizer: the policy's; None where it is not known.
        settings: the policy's ``generation_config``; None: it has none.

    Attributes:
        name: for messages.
        abilities: what it can do; `rewardsteer.decoding.engines.registry.MEANINGS` says what each
            means.
        stride: number of tokens per extension with which checking a growing sample costs little.
        holds_guides: the reward model of a guide runs inside the engine, which loads it by itself.
        writes_prompts: the engine's server renders prompts, not this process.
        by_name: policies are named models of a server.
        model_name: the policy's name where another process runs it; "" elsewhere.
        stop_ids: tokens that end a response.
        position_limit: longest row that the policy can read; None: it has no limit.
        readable: token ids that the policy has an embedding for.
        vocabulary_size: token ids that can be drawn; 0 without a tokenizer. A padded output layer
            has more rows than the tokenizer has ids.
        activity: counts what samples request and receive.
        on_failure: called with an error of one sample alone; None: such an error ends the run.
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
        self.vocabulary_size = 0 if tokenizer is None else id_count(tokenizer)
        self.activity = Activity()
        self.on_failure: Callable[[Exception], None] | None = None
        self._texts: dict[int, str] = {}

    @classmethod
    def share(cls, source: Any, longest: int | None, **options: Any) -> dict[str, Any]:
        """The options of ``open`` for several engines of one policy, one after another, with what
        they share: a loaded policy, a running vLLM. Here: as given.

        Args:
            source: as ``open`` takes it.
            longest: maximum of prompt and response tokens of all runs; 0: that of the first run;
                None: as many as the policy can read.
            options: of ``open``.
        """
        return options

    @classmethod
    def release(cls, options: Mapping[str, Any]) -> None:
        """Free the part of what is shared that runs with other reward models cannot use."""

    def complete(self, config: DecodingConfig) -> DecodingConfig:
        """The settings of a run with the defaults that this process decides filled in."""
        return with_defaults(config, self.settings)

    def check(self, method: Any, config: DecodingConfig) -> None:
        """Raise `ConfigError` if a method cannot run with these settings, abilities aside."""

    def begin(self, method: Any, config: DecodingConfig, longest: int) -> None:
        """Prepare for a run; ``longest`` is the maximum of prompt and response tokens."""

    def bound(self, cache_tokens: int, guides: int) -> None:
        """Limit the cache tokens and guides decoded together, if this engine decides it."""

    def token_text(self, token: int) -> str:
        """A token's own text, memoized because the same few tokens recur."""
        if token not in self._texts:
            self._texts[token] = plain_text([token], self.tokenizer, special=True)
        return self._texts[token]

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, rng: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> Sample:
        """A sample without any token yet; see `Sample`. The guide acts on its next-token scores;
        None: the policy alone."""
        raise NotImplementedError

    def likelihoods(self, prompt: Encoded) -> Likelihoods:
        """Log-probabilities of given tokens after a prompt; for engines with the ability
        ``likelihoods``."""
        raise NotImplementedError

    async def room(self) -> None:
        """Return once another prompt can start without waiting in the queue."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the engine; running samples are aborted."""
        raise NotImplementedError


@dataclass(frozen=True)
class Outcome:
    """A strategy's answer to one prompt.

    Attributes:
        sample: the response.
        reward: the response's reward, if the strategy computed one.
        details: further results of the strategy, by name.
    """

    sample: Sample
    reward: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
