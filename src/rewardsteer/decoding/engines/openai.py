"""The openai engine: any server behind an OpenAI-compatible address.

This process renders the prompts if it has the policy's tokenizer. Servers that take and return
token ids (vLLM's) get them; others get texts, and then the reward model gets texts too. Without a
tokenizer the server renders conversations, and returns only whole responses. Guides that score few
candidates run here, on the likeliest tokens that such a server names.
"""

import asyncio
import functools
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rewardsteer.addresses import KEY_ENV
from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.endpoint import NAMED_BY_ID, Endpoint
from rewardsteer.decoding.engines.openai_guided import GuidedSample
from rewardsteer.decoding.engines.openai_likelihoods import ServerLikelihoods
from rewardsteer.decoding.engines.openai_rows import GuidedRows
from rewardsteer.decoding.engines.openai_sample import OpenAISample
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.decoding.penalties import check_token_ids, ending_ids
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.errors import ConfigError

# Fields with vLLM's names, which not every server knows, and the values that change nothing.
_FIELDS: dict[str, Any] = {
    "temperature": None, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "stop_token_ids": (), "ignore_eos": False,
    "include_stop_str_in_output": False,
}
# A text in which different tokenizers find different numbers of tokens.
_TEXT = "Straße 1234567: tokenizers\n\n    don't  agree\t(x**2 == 41.5) — 東京 antidisestablished"
# Settings that leave the policy's distribution as it is; end-of-text is a token like others.
_NEUTRAL = {name: _FIELDS[name] for name in ("top_p", "top_k", "min_p", "repetition_penalty")} | {
    "temperature": 1.0, "ignore_eos": True, "seed": 0,
}


class OpenAIEngine(Engine):
    """A policy on a server.

    Args:
        tokenizer: the policy's; None: the server renders prompts.
        settings: the policy's ``generation_config``, the defaults of a run; None: the server's own
            defaults.
        places: requests at a time.
        spare: positions that responses leave free, see `share`.

    Attributes:
        gives_ids: whether requests and replies hold token ids.
        guiding: lock held while a reward model scores the rows of a guide.
        busy, steps, tokens: running requests, finished requests, and generated tokens.
        reason: why it can do less than other servers; "" otherwise.

    Raises:
        ConfigError: the server cannot be reached, or refuses.
    """

    name = "openai"
    by_name = True
    stride = 16

    def __init__(
        self, endpoint: Endpoint, tokenizer: Any = None, settings: Any = None, *, places: int = 8,
        spare: int = 0,
    ) -> None:
        super().__init__(tokenizer, settings)
        self.endpoint, self.model_name = endpoint, endpoint.model
        self.reason, found = "without the policy's tokenizer", set[str]()
        if tokenizer is not None:
            found = endpoint.abilities(self._shortest, "Hello")
            self.reason = "" if found else f"{endpoint.url} does not complete texts"
        self.abilities = frozenset({"abort", *found})  # type: ignore[arg-type]
        self.writes_prompts, self.gives_ids = "extend" not in found, "token_ids" in found
        self.readable = self.vocabulary_size
        self.position_limit = endpoint.longest and endpoint.longest - spare
        self.busy = self.waiting = self.batches = self.steps = self.tokens = 0
        self._places, self.guiding = asyncio.Semaphore(places), asyncio.Lock()
        self._clock, self._last = 0.0, 0.0
        # The largest number of likeliest tokens that the server has returned.
        self._named = 0
        self._guided: dict[int, GuidedRows] = {}

    @classmethod
    def open(
        cls, source: str | None, tokenizer: Any, config: DecodingConfig, *, url: str,
        model: str | None = None, key_env: str = KEY_ENV, settings: Any = None, spare: int = 0,
    ) -> "OpenAIEngine":
        """The engine of a run.

        Args:
            source: where the policy's tokenizer comes from; None: there is none.
            tokenizer: the policy's; without one the server writes prompts, and methods that extend
                responses are refused.
            config: ``batch_size`` is the number of requests at a time.
            url: base address of the server, ending in ``/v1``.
            model: the policy's name there; None: the only one.
            key_env: environment variable that holds the server's key.
            settings: the policy's ``generation_config``; None: that of the source, else the
                server's own counts.
            spare: see `share`.
        """
        if settings is None and source is not None:
            settings = policy_settings(source)
        endpoint = Endpoint(url, model, key_env=key_env)
        return cls(endpoint, tokenizer, settings, places=config.batch_size, spare=spare)

    @classmethod
    def share(cls, source: Any, longest: int | None, **options: Any) -> dict[str, Any]:
        """The options with a free position: vLLM's server draws a token after a row whose
        likelihood it is asked for. See `Engine.share`."""
        return options | {"spare": 1}

    def complete(self, config: DecodingConfig) -> DecodingConfig:
        """The settings of a run with the policy's own defaults; the server fills in the rest."""
        return config if self.settings is None else super().complete(config)

    def check(self, method: Any, config: DecodingConfig) -> None:
        """Raise `ConfigError` on penalties that a server would count wrongly (it sees only the last
        part of an extended response), and on more candidates than it returns."""
        if isinstance(method, LogitsGuide) and method.candidates:
            self._check_candidates(method, config)
        elif "extend" in method.abilities and (config.presence_penalty or config.frequency_penalty):
            raise ConfigError(
                f"The method {method.name!r} extends responses, and a server counts tokens for "
                "presence_penalty and frequency_penalty in the last extension alone; use "
                "repetition_penalty, or the engine transformers."
            )

    def _check_candidates(self, guide: LogitsGuide, config: DecodingConfig) -> None:
        if guide.gated:
            raise ConfigError(
                "A gate leaves tokens to the whole distribution of the policy, of which a server "
                "names the likeliest tokens alone; leave out the gate, or use the engine "
                "transformers."
            )
        if config.repetition_penalty != 1:
            raise ConfigError(
                f"repetition_penalty = {config.repetition_penalty:g} divides logits, and a server "
                "names log-probabilities, which give other results; set it to 1, or use "
                "presence_penalty, frequency_penalty or the engine transformers."
            )
        check_token_ids(config, self.vocabulary_size)
        barred = ending_ids(config, self.stop_ids) if config.min_tokens else ()
        if (named := guide.candidates + len(barred)) > self._named:
            self.endpoint.check_named(self._shortest, named)
            self._named = named

    @property
    def _shortest(self) -> list[int]:
        """A prompt of one token, for asking what the server can do."""
        return [min(self.stop_ids, default=0)]

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, rng: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> Sample:
        if guide is not None and guide.candidates:
            return GuidedSample(
                self, prompt, index, config, rng=rng, guide=guide, weight=Weight(config),
                log_probabilities=log_probabilities, top=top,
            )
        return OpenAISample(
            self, prompt, index, config, rng=rng, log_probabilities=log_probabilities, top=top
        )

    def likelihoods(self, prompt: Encoded) -> ServerLikelihoods:
        return ServerLikelihoods(self, prompt.token_ids)

    @functools.cached_property
    def length_of_text(self) -> int | None:
        """Number of tokens that the server's model finds in a fixed text, if the server says; it
        identifies the tokenizer, which is not known here."""
        return self.endpoint.count(_TEXT)

    async def room(self) -> None:
        """Return once a request can be sent at once."""
        async with self._places:
            pass

    async def turn(self) -> None:
        """Return at once: this engine takes no steps."""
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the connections; the server gives up what still runs."""
        await self.endpoint.close()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], float]]:
        """A request's slot; yields a function of its share of the elapsed time, in seconds."""
        async with self._places:
            self._tick()
            self.busy, begin = self.busy + 1, self._clock
            try:
                yield lambda: self._tick() - begin
            finally:
                self._tick()
                self.busy -= 1
                self.steps += 1

    def _tick(self) -> float:
        """A clock in seconds that runs 1/n as fast while n requests run."""
        now = time.perf_counter()
        self._clock += (now - self._last) / max(1, self.busy)
        self._last = now
        return self._clock

    def ask(
        self, sample: OpenAISample, wanted: int, separator: str, *, stream: bool
    ) -> AsyncGenerator[Any, None]:
        """Request up to ``wanted`` tokens of a sample, with a seed from its own draws."""
        extra = self._fields(sample.config) | {
            "max_tokens": wanted, "seed": sample.rng.getrandbits(63),
        }
        ban = min(wanted, sample.config.min_tokens - sample.length)
        if ban > 0:
            extra["min_tokens"] = ban
        if separator and self.gives_ids:
            extra |= {
                "stop": [*sample.config.stop, separator], "include_stop_str_in_output": True
            }
        if self.writes_prompts:
            return self.endpoint.ask({"messages": _messages(sample.prompt)}, extra, stream=stream)
        if "logprobs" in self.abilities and (
            sample.log_probability is not None or sample.top is not None or (stream and separator)
        ):
            extra |= {"logprobs": max(1, sample.top or 0)}
            if sample.top is not None:
                extra["return_tokens_as_token_ids"] = True
        if self.gives_ids:
            extra["return_token_ids"] = True
        return self.endpoint.ask({"prompt": self._prompt(sample)}, extra, stream=stream)

    def ask_next(self, sample: GuidedSample, top: int) -> AsyncGenerator[Any, None]:
        """Request the likeliest next tokens of a sample under the policy alone."""
        extra = _NEUTRAL | NAMED_BY_ID | {"max_tokens": 1, "logprobs": top}
        return self.endpoint.ask({"prompt": self._prompt(sample)}, extra, stream=False)

    def grow(self, sample: GuidedSample) -> None:
        sample.begin_growing()

    def rows_of(self, guide: LogitsGuide) -> GuidedRows:
        """The samples of a guide, which its reward model reads together."""
        self.drop_idle()
        if id(guide) not in self._guided:
            self._guided[id(guide)] = GuidedRows(guide, self)
        return self._guided[id(guide)]

    def drop_idle(self) -> None:
        """Free the reward model's caches of guides without growing samples."""
        self._guided = {key: one for key, one in self._guided.items() if not one.idle}

    def hold(self, sample: GuidedSample) -> None:
        """Nothing is kept here: the server has its own cache."""

    def leave(self, sample: GuidedSample) -> None:
        sample.give_up()
        self.drop_idle()

    def _prompt(self, sample: OpenAISample | GuidedSample) -> list[int] | str:
        ids = list(sample.prompt.token_ids)
        if self.gives_ids:
            return [*ids, *sample.token_ids]
        # The server puts the begin of a text before it.
        ids = ids[ids[:1] == [self.tokenizer.bos_token_id] :]
        assert isinstance(sample, OpenAISample), "guides need token ids"
        return plain_text(ids, self.tokenizer, special=True) + sample.written

    def _fields(self, config: DecodingConfig) -> dict[str, Any]:
        """Settings as request fields; open settings are left out."""
        fields = {
            name: value for name, neutral in _FIELDS.items() if name in config.model_fields_set
            and ((value := getattr(config, name)) != neutral or self.gives_ids)
        }
        if config.mode == "greedy":
            fields["temperature"] = 0
        if config.logit_bias:
            fields["logit_bias"] = {str(token): value for token, value in config.logit_bias}
        if config.stop:
            fields["stop"] = list(config.stop)
        return fields


def _messages(prompt: Encoded) -> list[dict[str, Any]]:
    if isinstance(prompt.given, str):
        return [{"role": "user", "content": prompt.given}]
    return [message.model_dump() for message in prompt.given]
