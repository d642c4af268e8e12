"""The reward model that a strategy gets for one prompt; it counts its cost."""

from collections.abc import Sequence

from rewardsteer.decoding.answering import Answer
from rewardsteer.decoding.asking import Ask
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.scoring import Scoring
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Cost


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
