"""The engine and the reward model that a strategy gets for one prompt; both count their cost."""

import random
from asyncio import gather
from collections.abc import Callable, Iterable, Sequence

from rewardsteer.decoding.answering import Answer
from rewardsteer.decoding.asking import Ask
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.likelihoods import Likelihoods
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.scoring import Scoring
from rewardsteer.goals.goal_state import GoalState
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


class PromptScorer:
    """A reward model, for one prompt.

    Args:
        scoring: answers many prompts' questions together; None: there is no reward model.
        prompt: the prompt.

    Attributes:
        cost: of the reward model so far.
    """

    def __init__(self, scoring: Scoring | None, prompt: Encoded) -> None:
        self._scoring, self._prompt = scoring, prompt
        self._seen: dict[int, Sample] = {}
        self._told: dict[int, int] = {}
        self.cost = Cost()

    async def score(self, samples: Sequence[Sample]) -> list[float]:
        """Rewards of responses: complete ones written as in training, closed or open; unfinished
        ones as they are.

        Raises:
            NonFiniteError: a reward is no number.
        """
        return await self._answers([Ask(self._prompt, one) for one in samples])

    async def preferences(self, pairs: Sequence[tuple[Sample, Sample]]) -> list[float]:
        """Probabilities that the first of two finished responses is preferred, by a model that
        compares them.

        Raises:
            DataError: a pair is too long for it.
            NonFiniteError: a probability is no number.
        """
        return await self._answers([Ask(self._prompt, one, rival=other) for one, other in pairs])

    async def score_prompt(self, sample: Sample) -> float:
        """Reward of the prompt without any response; the sample's row continues from it."""
        [reward] = await self._answers([Ask(self._prompt, sample, prompt_alone=True)])
        return reward

    async def similarities(self, samples: Sequence[Sample], goal: GoalState) -> list[float]:
        """Cosines of the states of the samples' last tokens, as they were generated, to a goal.

        Raises:
            NonFiniteError: a state is no number.
        """
        return await self._answers([Ask(self._prompt, one, goal) for one in samples])

    async def new_similarities(self, sample: Sample, goal: GoalState) -> list[float]:
        """Similarities of all tokens since the last call for this sample. With a tokenizer of its
        own, the reward model's tokens count; the last one may still change, and is returned by the
        next call."""
        told = self._told.get(id(sample), 0)
        [answer] = await self._ask([Ask(self._prompt, sample, goal, told=told)])
        self._told[id(sample)] = told + len(answer.values)
        return list(answer.values)

    async def _answers(self, asks: Sequence[Ask]) -> list[float]:
        return [answer.values[-1] for answer in await self._ask(asks)]

    async def _ask(self, asks: Sequence[Ask]) -> list[Answer]:
        assert self._scoring is not None, "the strategy declares that it needs a reward model"
        self._seen |= {id(ask.sample): ask.sample for ask in asks}
        answers = await self._scoring.answer(asks)
        for answer in answers:
            self.cost += answer.cost
        return answers

    def reads(self, sample: Sample) -> bool:
        """Whether the reward model was trained on all tokens of a response, not if the policy alone
        knows some."""
        assert self._scoring is not None
        return self._scoring.reads(sample)

    def knows_end(self, sample: Sample) -> bool:
        """Whether the reward model was trained on the token that ended a sample: not if it was
        trained on open responses, or on responses with another end."""
        assert self._scoring is not None
        return self._scoring.knows_end(sample)

    def close(self) -> None:
        """Drop the cached states of this prompt."""
        if self._scoring is not None:
            self._scoring.forget(list(self._seen.values()))
