"""Rewards for many strategies that ask at the same time.

Complete responses are scored in one batch. For a growing sample the reward model's cache is kept,
so that a reward, or a similarity to a goal, costs only the new tokens. Where the reward model gets
texts, its cache is kept as far as its own tokens are unchanged.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from rewardsteer.decoding.answering import Answer, Answers
from rewardsteer.decoding.asking import Ask
from rewardsteer.decoding.running import Activity
from rewardsteer.decoding.sample import Sample

# Turns of the loop in which other strategies can join a batch of questions.
_TURNS = 4


class Scoring:
    """A reward model that answers questions of many strategies in batches.

    Args:
        scorer: a `rewardsteer.models.scorer.Scorer`, or another
            `rewardsteer.models.text_scorer.TextScorer`, which is asked about texts.
        batch_size: whole responses scored together.
        activity: counts questions and answers.
        threaded: run the reward model in another thread, so that the loop goes on.
        texts: score texts, because the policy's tokens are unknown or are not the reward model's.
    """

    def __init__(
        self, scorer: Any, *, batch_size: int, activity: Activity, threaded: bool = False,
        texts: bool = False,
    ) -> None:
        self._scorer, self._texts = scorer, texts
        self._activity, self._threaded = activity, threaded
        self._answers = Answers(scorer, batch_size=batch_size, texts=texts)
        self._pending: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers, in the order of the questions.

        Raises:
            NonFiniteError: an answer is not finite.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in asks]
        self._pending += zip(asks, futures, strict=True)
        self._activity.note()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drive())
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        return answers  # type: ignore[return-value]

    def reads(self, sample: Sample) -> bool:
        """Whether the reward model knows every token of a sample."""
        return self._texts or max(sample.token_ids, default=0) < self._scorer.vocabulary_size

    def knows_end(self, sample: Sample) -> bool:
        """Whether the token that ended a sample is the one that closes responses in training."""
        if self._texts:
            return True
        closed = self._scorer.close_response(sample.token_ids, sample.stop_token)
        return bool(closed[: len(sample.token_ids)] == list(sample.token_ids))

    def forget(self, samples: Sequence[Sample]) -> None:
        """Drop the cached states of samples."""
        self._answers.forget(samples)

    async def _drive(self) -> None:
        while self._pending:
            await self._activity.settle(_TURNS)
            taken, self._pending = self._pending, []
            asks = [ask for ask, _ in taken]
            answers = (
                await asyncio.to_thread(self._answers.of, asks) if self._threaded
                else self._answers.of(asks)
            )
            for (_, future), answer in zip(taken, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            self._activity.note()
