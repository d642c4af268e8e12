"""The vLLM engine, in this process: every extension of a sample is a request with all tokens so far
as its prompt, which vLLM's prefix cache does not process again.

vLLM draws from a seed of each sample's own. So draws do not depend on the batch, but differ from
those of the transformers engine. Greedy responses are the same.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardsteer.decoding.answer import Method, is_guided_by
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.registry import ABILITIES
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.engines.vllm_checks import check_supported
from rewardsteer.decoding.engines.vllm_likelihoods import Continuation, VllmLikelihoods
from rewardsteer.decoding.engines.vllm_requests import is_guided, parameters, take
from rewardsteer.decoding.engines.vllm_settings import guided_by, vocabulary_card
from rewardsteer.decoding.engines.vllm_start import Running, built_for, check_device, start
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.decoding.memory import EngineError
from rewardsteer.decoding.policy import model_bounds
from rewardsteer.decoding.sample import Encoded
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import ConfigError, NonFiniteError
from rewardsteer.records import Cost


class VllmEngine(Engine):
    """A running vLLM with the policy's tokenizer. Costs lack what vLLM computes again after
    preempting a request, which it does not report.

    Args:
        llm: a ``vllm.LLM``; with the reward model where it is to guide. None: `begin` starts it.
        tokenizer: the policy's.
        settings: the policy's ``generation_config``.
        places: number of samples that start without waiting.
    """

    name = "vllm"
    abilities = ABILITIES["vllm"]
    # Each extension is a request of its own.
    stride = 8
    holds_guides = True

    def __init__(self, llm: Any, tokenizer: Any, settings: Any = None, *, places: int) -> None:
        super().__init__(tokenizer, settings)
        self.llm, self._source = llm, ""
        self._options: dict[str, Any] = {}
        self._running = Running()
        self._devices: tuple[str, str | None, str | None] = (AUTO, None, None)
        self._places, self._plain = places, Plain(None, DecodingConfig())
        self._asked: dict[str, TokenSample | Continuation] = {}
        # Each step's time is shared among the running requests: the sum of the shares so far, and
        # that sum when each request began.
        self._clock, self._begun = 0.0, dict[str, float]()
        self._names = map(str, itertools.count())
        self._pump: asyncio.Task[None] | None = None
        self._roomy = asyncio.Event()

    @classmethod
    def open(
        cls, source: str, tokenizer: Any, config: DecodingConfig, *, device: str = AUTO,
        dtype: str | None = None, reward_device: str | None = None,
        reward_dtype: str | None = None, running: Running | None = None, **options: Any,
    ) -> "VllmEngine":
        """The engine of a run, which starts vLLM once its prompts are known to be fine.

        Args:
            source: the policy's folder or hub name.
            device, dtype: of the policy; there is one device, which vLLM was built for.
            reward_device, reward_dtype: of a reward model that scores whole samples; one that
                guides runs where the policy does, in its precision.
            running: what runs of earlier engines; None: nothing.
            options: engine arguments of vLLM.
        """
        engine = cls(None, tokenizer, policy_settings(source), places=config.batch_size)
        limit, engine.readable = model_bounds(source)
        engine._running = running or Running()
        limits = [one for one in (limit, options.get("max_model_len")) if one is not None]
        engine.position_limit = min(limits) - engine._running.spare if limits else None
        engine._source, engine._options = source, {"dtype": dtype or "auto"} | options
        engine._devices = device, reward_device, reward_dtype
        return engine

    @classmethod
    def share(
        cls, source: str, longest: int | None, *, running: Running | None = None, **options: Any
    ) -> dict[str, Any]:
        """The options with a vLLM that starts once; see `Engine.share`."""
        return {"running": running or Running(longest, spare=1), **options}

    @classmethod
    def release(cls, options: Mapping[str, Any]) -> None:
        """Stop vLLM: it cannot change the reward models that it has loaded."""
        options["running"].stop()

    def check(self, method: Method, config: DecodingConfig) -> None:
        """Raise `ConfigError` where vLLM cannot do this, or not on these devices."""
        check_supported(method, config)
        device, *reward = self._devices
        check_device(device)
        if is_guided_by(method) and any(reward):
            raise ConfigError(
                "A reward model that guides inside vLLM runs where the policy does, in its "
                "precision; leave out the reward model's own (--reward-device, --reward-dtype)."
            )

    def begin(self, method: Method, config: DecodingConfig, longest: int) -> None:
        """Start vLLM, with the reward model if it guides.

        Raises:
            ConfigError: vLLM is not installed, or refuses an option.
            MismatchError: the reward model has no vocabulary head.
        """
        if self.llm is not None:
            return
        self.llm = self._running.policies.get(self._source)
        if self.llm is None:
            self.llm = self._running.policies[self._source] = self._start(method, config, longest)
        if method.scorer is not None and not is_guided_by(method):
            # After vLLM has reserved its device memory.
            method.scorer.to(choose_device(self._devices[1] or built_for()))

    def _start(self, method: Method, config: DecodingConfig, longest: int) -> Any:
        options: dict[str, Any] = {"max_num_seqs": config.batch_size}
        most = self._longest(method, longest)
        if most is not None:
            options["max_model_len"] = most
        options |= self._options
        if is_guided_by(method):
            folder = method.scorer.name
            vocabulary_card(folder, Path(folder))
            options["hf_overrides"] = options.get("hf_overrides", {}) | guided_by([folder])
        return start(self._source, **options)

    def _longest(self, method: Method, longest: int) -> int | None:
        """Maximum of tokens that rows have together with what vLLM draws after them; None: as many
        as the policy can read, which only vLLM knows."""
        # For likelihoods, vLLM draws a token after the longest row.
        spare = self._running.spare or "likelihoods" in method.abilities
        limits = [method.scorer.position_limit] if is_guided_by(method) else []
        if self._running.longest is not None:
            limits.append(max(longest, self._running.longest) + spare)
        elif self.position_limit is not None:
            limits.append(self.position_limit + self._running.spare)
        return min((one for one in limits if one is not None), default=None)

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, rng: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> TokenSample:
        return TokenSample(
            self, prompt, index, config, rng=rng, guide=guide or self._plain,
            weight=Weight(config), log_probabilities=log_probabilities, top=top,
        )

    def likelihoods(self, prompt: Encoded) -> VllmLikelihoods:
        return VllmLikelihoods(self, prompt.token_ids)

    async def room(self) -> None:
        """Return once fewer requests run than there are places."""
        while len(self._asked) >= self._places:
            self._roomy.clear()
            await self._roomy.wait()

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self._asked:
            self.llm.llm_engine.abort_request(list(self._asked))
        self._asked.clear()
        self._begun.clear()

    def grow(self, sample: TokenSample) -> None:
        name = next(self._names)
        self._ask(
            name, sample, [*sample.prompt_ids, *sample.token_ids], parameters(sample, name)
        )

    def ask(self, asked: Continuation) -> None:
        self._ask(next(self._names), asked, asked.token_ids, asked.parameters())

    def _ask(
        self, name: str, asked: TokenSample | Continuation, token_ids: list[int], parameters: Any
    ) -> None:
        self.activity.note()
        self._asked[name], self._begun[name] = asked, self._clock
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": token_ids}, parameters)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())

    def hold(self, sample: TokenSample) -> None:
        """Nothing: vLLM's prefix cache keeps a sample's states."""

    def leave(self, sample: TokenSample | Continuation) -> None:
        """Drop an aborted sample, or a likelihood that is no longer wanted."""
        self.activity.note()
        running = [name for name, one in self._asked.items() if one is sample]
        for name in running:
            self._taken_out(name)
        if running:
            self.llm.llm_engine.abort_request(running)
        self._roomy.set()

    async def _run(self) -> None:
        """Take vLLM's steps as long as some request runs."""
        try:
            while self._asked:
                await self.activity.settle()
                began = time.perf_counter()
                ended = [one for one in self.llm.llm_engine.step() if one.finished]
                self._clock += (time.perf_counter() - began) / max(1, len(self._asked))
                ended = [one for one in ended if one.request_id in self._asked]
                guided = [one for one in ended if self._guided(one.request_id)]
                failed = self.llm.apply_model(_failures)[0] if guided else {}
                for output in ended:
                    sample = self._taken_out(output.request_id)
                    if isinstance(sample, Continuation):
                        sample.take(output)
                        continue
                    if output.request_id in failed:
                        sample.error = NonFiniteError(
                            f"From some token on, {failed[output.request_id]}."
                        )
                    take(sample, output)
                    sample.tell()
                if ended:
                    self.activity.note()
                    self._roomy.set()
        except Exception as error:
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        """Fail all requests: vLLM cannot go on."""
        self.activity.note()
        for name in list(self._asked):
            asked = self._taken_out(name)
            if isinstance(asked, Continuation):
                asked.fail(EngineError(error))
            else:
                asked.error = EngineError(error)
                asked.tell()
        self._roomy.set()

    def _guided(self, name: str) -> bool:
        asked = self._asked[name]
        return isinstance(asked, TokenSample) and is_guided(asked)

    def _taken_out(self, name: str) -> TokenSample | Continuation:
        """Remove a request; what it was asked for, with the time that it cost."""
        asked = self._asked.pop(name)
        asked.cost += Cost(seconds=self._clock - self._begun.pop(name))
        return asked


def _failures(model: Any) -> dict[str, str]:
    """Run in a worker: the requests whose guidance failed, with the reasons."""
    failed = dict(model.failed)
    model.failed.clear()
    return failed
