"""The engine and the reward model that a strategy gets for one prompt; both count their cost."""

import random
from asyncio import gather
from collections.abc import Callable, Iterable

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.likelihoods import Likelihoods
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.records import Cost


class PromptEngine:
    """An engine, for one prompt.

    Args:
        engine: the engine.
        prompt: to be answered.
        config: how samples are drawn.
        guide: acts on all samples; None: the policy alone.
        first: index of the first sample, from which draws are seeded.
        log_probabilities, top: requested log-probabilities, see `Sample`.
        watch: called with every sample that begins; None: nothing is called.

    Attributes:
        samples: all samples that were started.
        stride: see `Engine`.
    """

    def __init__(
        self, engine: Engine, prompt: Encoded, config: DecodingConfig, *,
        guide: LogitsGuide | None = None, first: int = 0, log_probabilities: bool = False,
        top: int | None = None, watch: Callable[[Sample], None] | None = None,
    ) -> None:
        self._engine, self._prompt, self._config = engine, prompt, config
        self._guide, self._first, self._watch = guide, first, watch
        self._log_probabilities, self._top = log_probabilities, top
        self.samples: list[Sample] = []
        self._likelihoods: list[Likelihoods] = []
        self._rngs: dict[int, random.Random] = {}
        self.stride = engine.stride

    def start(self, index: int, *, beside: Engine | None = None) -> Sample:
        """A sample without any token; its draws are seeded by the index. ``beside`` is the engine
        of a second policy that continues its tokens."""
        sample = self._keep(self._engine.start(
            self._prompt, index, self._config, rng=self._rng_of(index), guide=self._guide,
            log_probabilities=self._log_probabilities, top=self._top,
        ))
        if beside is not None:
            sample.drawable = beside.readable or None
        return sample

    async def draw(self, indices: Iterable[int]) -> list[Sample]:
        """A finished sample for each index."""
        samples = [self.start(index) for index in indices]
        await gather(*(sample.extend() for sample in samples))
        return samples

    def start_on(
        self, engine: Engine, index: int, *, log_probabilities: bool = False
    ) -> Sample:
        """A sample of another engine, whose policy has the same tokens; its cost is added."""
        sample = self._keep(engine.start(
            self._prompt, index, self._config, rng=self._rng_of(index),
            log_probabilities=log_probabilities,
        ))
        sample.drawable = self._engine.readable or None
        return sample

    def likelihoods(self) -> Likelihoods:
        """Log-probabilities of given tokens after this prompt; the cost is added."""
        opened = self._engine.likelihoods(self._prompt)
        self._likelihoods.append(opened)
        return opened

    def fork(self, sample: Sample, index: int) -> Sample:
        """A sample that continues another one's tokens, with draws seeded by ``index``."""
        return self._keep(sample.fork(index, self._rng_of(index)))

    def _rng_of(self, index: int) -> random.Random:
        if index not in self._rngs:
            self._rngs[index] = row_generator(
                self._config.seed, self._prompt.id, self._first + index
            )
        return self._rngs[index]

    def _keep(self, sample: Sample) -> Sample:
        self.samples.append(sample)
        if self._watch is not None:
            self._watch(sample)
        return sample

    @property
    def cost(self) -> Cost:
        """Of all samples and likelihoods."""
        costs = [self._cost_of(one) for one in self.samples]
        return sum(costs + [one.cost for one in self._likelihoods], Cost())

    def _cost_of(self, sample: Sample) -> Cost:
        if sample.engine is self._engine:
            return sample.cost
        return sample.cost.model_copy(update={"draft_tokens": sample.cost.lm_tokens})

    def close(self) -> None:
        """Abort what still runs."""
        for sample in self.samples:
            sample.abort()
