"""The transformers engine: one batch per guide, stepped while programs wait for samples."""

import asyncio
import logging
import random
from dataclasses import replace
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import NAMES, what_is_taken, with_defaults
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.registry import ABILITIES
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.engines.transformers.admission import Admission, Bounds, Waiters
from rewardsteer.decoding.engines.transformers.batch import Batch
from rewardsteer.decoding.engines.transformers.likelihoods import PolicyLikelihoods
from rewardsteer.decoding.engines.transformers.side_by_side import open_batch
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.guides.weights import KnownWeights
from rewardsteer.decoding.memory import EngineError, out_of_memory, translate_oom
from rewardsteer.decoding.penalties import check_token_ids
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.sample import Encoded
from rewardsteer.errors import ConfigError
from rewardsteer.models.limits import position_limit
from rewardsteer.models.prefix_reader import PrefixReader

logger = logging.getLogger(__name__)


class TransformersEngine(Engine):
    """A policy with its tokenizer.

    Args:
        policy: a causal LM in evaluation mode, on its device.
        tokenizer: the policy's.
        bounds: limits of what is decoded together.

    Attributes:
        on_failure: called with an exception in a step of several rows, which are then decoded one
            by one, so that only the row with the error fails; None: the exception ends the run.
        steps, tokens: numbers of steps and of drawn tokens so far.
    """

    name = "transformers"
    abilities = ABILITIES["transformers"]

    def __init__(self, policy: Any, tokenizer: Any, bounds: Bounds | None = None) -> None:
        super().__init__(tokenizer, getattr(policy, "generation_config", None))
        self.policy = policy.eval()
        self.position_limit = position_limit(policy.config)
        rows = policy.get_output_embeddings().weight.shape[0]
        self.vocabulary_size = min(rows, self.vocabulary_size)
        self.readable = int(policy.get_input_embeddings().weight.shape[0])
        self.steps = self.tokens = 0
        self._admission = Admission(bounds or Bounds())
        self._plain = Plain(None, with_defaults(DecodingConfig()))
        self._weights = KnownWeights()
        self._batches: dict[int, Batch] = {}
        self._drafts: tuple[str, int] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._waiters = Waiters()

    @classmethod
    def open(
        cls, source: str, tokenizer: Any, config: DecodingConfig, policy: Any = None, **options: Any
    ) -> "TransformersEngine":
        """The engine of a run; the policy is loaded (`load_policy`) unless it is given."""
        policy = policy or load_policy(source, **options)
        return cls(policy, tokenizer, Bounds(places=config.batch_size))

    @classmethod
    def share(cls, source: str, longest: int | None, **options: Any) -> dict[str, Any]:
        """The options with the loaded policy; see `Engine.share`."""
        return {"policy": options.get("policy") or load_policy(source, **options), **options}

    def bound(self, cache_tokens: int, guides: int) -> None:
        """Limit what is decoded together; see `Bounds`."""
        bounds = self._admission.bounds
        self._admission.bounds = replace(bounds, cache_tokens=cache_tokens, guides=guides)

    def complete(self, config: DecodingConfig) -> DecodingConfig:
        """The settings of a run; logs which of them come from the policy."""
        told = what_is_taken(config, self.settings)
        if told and not NAMES.keys() <= config.model_fields_set:
            logger.warning("%s", told)
        return super().complete(config)

    def check(self, method: Any, config: DecodingConfig) -> None:
        """Raise `ConfigError` on tokens that the policy does not have."""
        if config.top_k > self.vocabulary_size:
            raise ConfigError(
                f"top_k = {config.top_k} exceeds the policy's vocabulary of {self.vocabulary_size} "
                "tokens; lower it, or use 0 to draw from all."
            )
        check_token_ids(config, self.vocabulary_size)

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, rng: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> TokenSample:
        """A sample without any token."""
        return TokenSample(
            self, prompt, index, config, rng=rng, guide=guide or self._plain,
            weight=self._weights.of(config, 4 * self._admission.bounds.places),
            log_probabilities=log_probabilities, top=top,
        )

    def likelihoods(self, prompt: Encoded) -> PolicyLikelihoods:
        """How likely the policy makes given tokens after a prompt."""
        return PolicyLikelihoods(PrefixReader(self.policy), prompt.token_ids)

    async def room(self) -> None:
        """Return once there are more places than growing and waiting samples."""
        await self._waiters.room(self._is_full)

    async def turn(self) -> None:
        """Return after the next step, at once where there is none."""
        await self._waiters.turn(stepping=self._pump is not None and not self._pump.done())

    def _is_full(self) -> bool:
        return self.waiting + self.busy >= self._admission.bounds.places

    async def close(self) -> None:
        """Abort what runs."""
        if self._pump is not None:
            self._pump.cancel()
        self._batches.clear()

    @property
    def busy(self) -> int:
        """Number of growing rows."""
        return sum(batch.growing for batch in self._batches.values())

    @property
    def waiting(self) -> int:
        """Number of samples that wait for a row."""
        return len(self._admission)

    @property
    def batches(self) -> int:
        """Number of guides with a batch, each with its caches."""
        return len(self._batches)

    def grow(self, sample: TokenSample) -> None:
        """Queue a sample that wants tokens."""
        self.activity.note()
        batch = self._batches.get(id(sample.guide))
        if batch is None or not batch.has(sample):
            self._admission.put(sample)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())

    def hold(self, sample: TokenSample) -> Any:
        """A sample's cached states, from which others can continue."""
        batch = self._batches.get(id(sample.guide))
        if batch is not None and batch.has(sample) and sample.held is None:
            sample.held = batch.hold(sample)
        return sample.held

    def leave(self, sample: TokenSample) -> None:
        """Drop an aborted sample."""
        self.activity.note()
        self._admission.drop(sample)
        batch = self._batches.get(id(sample.guide))
        if batch is not None:
            batch.charge([sample])

    async def _run(self) -> None:
        """Take steps as long as some sample wants tokens."""
        try:
            while True:
                await self.activity.settle()
                admitted = self._admitted()
                turns = list(dict.fromkeys([*self._batches, *admitted]))
                if not admitted and not self.busy:
                    break
                for key in turns:
                    await self._step(key, admitted.get(key, []))
                self._waiters.tell(full=self._is_full())
        except Exception as error:
            self._fail_all(error)
        finally:
            self._drop_idle()

    def _admitted(self) -> dict[int, list[TokenSample]]:
        admitted: dict[int, list[TokenSample]] = {}
        working = [
            sample for batch in self._batches.values() for sample in batch.samples
            if sample.growing
        ]
        for sample in self._admission.take(working):
            admitted.setdefault(id(sample.guide), []).append(sample)
        return admitted

    async def _step(self, key: int, admitted: list[TokenSample]) -> None:
        """One token for the rows of a guide."""
        batch = self._batches.get(key)
        if not admitted and (batch is None or not batch.growing):
            return
        try:
            if batch is None:
                batch = self._batches[key] = self._open(admitted[0].guide)
            stopped = batch.read(admitted)
            if stopped:
                self._tell(stopped)
                # Programs that continue at once do so within this step.
                await self.activity.settle()
            ended = batch.draw()
            self.steps += 1
            self.tokens += batch.drawn
            self._tell(ended)
            self._admission.went_well()
        except Exception as error:
            samples = [] if batch is None else batch.samples
            if batch is not None:
                batch.charge(samples)
            self._part(key, [*samples, *admitted], error)
        if batch is not None and not batch.samples:
            self._batches.pop(key, None)

    def _open(self, guide: LogitsGuide) -> Batch:
        return open_batch(self.policy, guide, self._drafts)

    def begin(self, method: Any, config: DecodingConfig, longest: int) -> None:
        """Get ready for the samples of a run."""
        self._drafts = None if config.draft == "none" else (config.draft, config.draft_tokens)

    def _part(self, key: int, samples: list[TokenSample], error: Exception) -> None:
        """Discard the batch after a failed step of several rows. Its rows go to the front of the
        queue and run again, which is not part of their cost."""
        rows = list(dict.fromkeys(samples))
        self._batches.pop(key, None)
        growing = [sample for sample in rows if sample.growing]
        self._tell([sample for sample in rows if not sample.growing])
        alone = len(growing) == 1
        if out_of_memory(error) and not alone:
            self._admission.too_many(len(growing))
            self._admission.put_back(growing)
            return
        if alone and (self.on_failure is not None or out_of_memory(error)):
            self._blame(growing[0], error)
            self._tell(growing)
            return
        if self.on_failure is None:
            self._admission.put_back(growing)
            raise error
        self.on_failure(error)
        for sample in growing:
            self._alone(sample)

    def _alone(self, sample: TokenSample) -> None:
        """Take a step of one row; an error is this row's own."""
        try:
            batch = self._open(sample.guide)
            batch.read([sample])
            batch.draw()
            batch.charge([sample])
        except Exception as error:
            self._blame(sample, error)
        if sample.growing and sample.error is None:
            self._admission.put_back([sample])
        else:
            self._tell([sample])

    def _blame(self, sample: TokenSample, error: Exception) -> None:
        """Fail this sample, whose step failed."""
        sample.error = (
            error if self.on_failure is not None else translate_oom(error, (
                "with one row alone; lower max_new_tokens (now "
                f"{sample.config.max_new_tokens}), where there are candidates top_k (now "
                f"{sample.config.top_k}), or shorten the prompt"
            ))
        )
        if self.on_failure is not None:
            self.on_failure(error)

    def _tell(self, samples: list[TokenSample]) -> None:
        """Let the programs of samples continue whose extension has ended."""
        self.activity.note()
        for sample in samples:
            sample.tell()

    def _fail_all(self, error: Exception) -> None:
        """Fail all samples: the engine cannot go on."""
        waiting = self._admission.take_all()
        running = [one for batch in self._batches.values() for one in batch.samples]
        self._batches.clear()
        for sample in [*waiting, *running]:
            sample.error = EngineError(error)
        self._tell([*waiting, *running])

    def _drop_idle(self) -> None:
        """Close batches without growing samples; the states of paused ones are held."""
        for key, batch in list(self._batches.items()):
            if all(sample.over for sample in batch.samples):
                del self._batches[key]
        self._waiters.tell(full=self._is_full())
