"""A reward model's answers to many programs that ask at once.

Whole responses are read together. Of a sample that grows, what was read before is kept: its reward,
or its similarity to a goal, costs the reading of its new tokens.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardsteer.decoding.engine import Encoded, Sample
from rewardsteer.decoding.growing import GrowingReads, Value
from rewardsteer.decoding.memory import out_of_memory, translate_oom
from rewardsteer.decoding.running import Activity, settle
from rewardsteer.errors import NonFiniteError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Cost

# Others ask within so many turns of the loop, or wait for the next time.
_TURNS = 4
_REMEDY = (
    "while the reward model read a response alone; lower max_new_tokens, shorten the prompt, or "
    "give the reward model a device of its own"
)


@dataclass(eq=False)
class Ask:
    """What is asked about a sample.

    Attributes:
        prompt: of the sample.
        sample: the response; as it stands, or closed where it has ended.
        goal: a goal state, for the similarity of the last token's state; None: the reward.
        prompt_alone: the reward of the prompt, without the response.
        told: of how many of the response's tokens the similarities are known, where those of all
            the others are asked for; None: of the last one alone.
    """

    prompt: Encoded
    sample: Sample
    goal: GoalState | None = None
    prompt_alone: bool = False
    told: int | None = None


@dataclass(frozen=True)
class Answer:
    """A reward, or similarities, and what they cost."""

    values: Sequence[float]
    cost: Cost


class Scoring:
    """A reward model at work.

    Args:
        scorer: a `rewardsteer.models.scorer.Scorer`.
        batch_size: whole responses read together.
        activity: told of what is asked and answered.
        threaded: read in another thread, so that the loop goes on meanwhile.
        texts: read texts and not the policy's tokens, which are not known or not the reward
            model's.
    """

    def __init__(
        self, scorer: Any, *, batch_size: int, activity: Activity, threaded: bool = False,
        texts: bool = False,
    ) -> None:
        self._scorer, self._batch_size, self._texts = scorer, batch_size, texts
        self._activity, self._threaded = activity, threaded
        self._growing = GrowingReads(scorer)
        self._pending: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers, in the order of the questions.

        Raises:
            NonFiniteError: one of them is no number.
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
        """Whether training showed the token that ended a sample, where it is read."""
        if self._texts:
            return True
        closed = self._scorer.close_response(sample.token_ids, sample.stop_token)
        return bool(closed[: len(sample.token_ids)] == list(sample.token_ids))

    def forget(self, samples: Sequence[Sample]) -> None:
        """Drop what was read of samples."""
        self._growing.forget(samples)

    async def _drive(self) -> None:
        while self._pending:
            await settle(lambda: self._activity.count, _TURNS)
            taken, self._pending = self._pending, []
            asks = [ask for ask, _ in taken]
            answers = (
                await asyncio.to_thread(self._run, asks) if self._threaded else self._run(asks)
            )
            for (_, future), answer in zip(taken, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            self._activity.note()

    def _run(self, asks: Sequence[Ask]) -> list[Answer | Exception]:
        """Answers, or why there is none; what is asked alike is read together."""
        alike: dict[tuple[bool, int], list[Ask]] = {}
        for ask in asks:
            alike.setdefault((self._grows(ask), id(ask.goal)), []).append(ask)
        answers: dict[int, Answer | Exception] = {}
        for (grows, _), some in alike.items():
            began = time.perf_counter()
            found = self._values(some, grows=grows)
            share = (time.perf_counter() - began) / len(some)
            for ask, one in zip(some, found, strict=True):
                answers[id(ask)] = one if isinstance(one, Exception) else Answer(
                    one.values, Cost(rm_calls=1, rm_forwards=one.forwards, rm_tokens=one.tokens,
                                     seconds=share),
                )
        return [answers[id(ask)] for ask in asks]

    def _values(self, asks: Sequence[Ask], *, grows: bool) -> list[Value | Exception]:
        try:
            return self._growing_values(asks) if grows else self._whole_values(asks)
        except Exception as error:
            # What was read when it failed cannot be trusted.
            self._growing = GrowingReads(self._scorer)
            half = len(asks) // 2
            if not out_of_memory(error) or not half:
                return [translate_oom(error, _REMEDY)] * len(asks)
        return self._values(asks[:half], grows=grows) + self._values(asks[half:], grows=grows)

    def _grows(self, ask: Ask) -> bool:
        """Whether something of it was read, or will be asked again."""
        if self._texts or (ask.told is not None and ask.sample.length - ask.told != 1):
            return False
        if ask.goal is not None:
            # Some goals depend on the prompt's state, which is read with the whole.
            return ask.goal.keys is None
        over = ask.sample.finish_reason is not None and not ask.prompt_alone
        return self._scorer.scores_last_token and not (
            over and not self._growing.knows(ask.sample)
        )

    def _ids(self, ask: Ask) -> tuple[list[int], list[int]]:
        """Token ids of what is asked about: prompt and response."""
        sample = ask.sample
        opened = ask.prompt_alone or ask.goal is not None or sample.finish_reason is None
        if self._texts:
            text = "" if ask.prompt_alone else sample.text
            prompts, responses = self._scorer.encode([ask.prompt.given], [text], closed=not opened)
            return prompts[0], responses[0]
        prompt = list(ask.prompt.token_ids)
        if ask.prompt_alone:
            return prompt, []
        if opened:
            return prompt, list(sample.token_ids)
        return prompt, self._scorer.close_response(sample.response_ids, sample.stop_token)

    def _growing_values(self, asks: Sequence[Ask]) -> list[Value | Exception]:
        found = self._growing.read(
            [ask.sample for ask in asks],
            [[*prompt, *response] for prompt, response in map(self._ids, asks)], asks[0].goal,
        )
        return [_checked(one, ask) for one, ask in zip(found, asks, strict=True)]

    def _whole_values(self, asks: Sequence[Ask]) -> list[Value | Exception]:
        prompts, responses = zip(*map(self._ids, asks), strict=True)
        goal = asks[0].goal
        try:
            if goal is None:
                rewards = self._scorer.score_ids(prompts, responses, batch_size=self._batch_size)
                values: list[Sequence[float]] = [[float(reward)] for reward in rewards]
            else:
                read = self._scorer.token_scores_ids(
                    prompts, responses, batch_size=self._batch_size, goal=goal
                )
                values = [
                    self._asked(ask, one.similarities.tolist())
                    for ask, one in zip(asks, read, strict=True)
                ]
        except NonFiniteError as error:
            if len(asks) > 1:
                # One row's trouble is not that of the others.
                return [self._whole_values([ask])[0] for ask in asks]
            return [NonFiniteError(f"While judging a response to {asks[0].prompt.id}: {error}")]
        return [
            _checked(Value(own, 1, len(prompt) + len(response)), ask)
            for ask, prompt, response, own in zip(asks, prompts, responses, values, strict=True)
        ]

    def _asked(self, ask: Ask, similarities: Sequence[float]) -> Sequence[float]:
        """Those of the tokens that are asked about."""
        if ask.told is None:
            # Nothing that is text has been written yet.
            return similarities[-1:] or [-1.0]
        unsure = self._texts and ask.sample.finish_reason is None
        return similarities[ask.told : len(similarities) - unsure]


def _checked(found: Value, ask: Ask) -> Value | Exception:
    wrong = [value for value in found.values if not math.isfinite(value)]
    return _not_a_number(wrong[0], ask) if wrong else found


def _not_a_number(value: float, ask: Ask) -> NonFiniteError:
    return NonFiniteError(
        f"The reward model gave {value} at step {max(1, len(ask.sample.token_ids))} of row "
        f"{ask.prompt.id!r}; the checkpoint may be damaged, or its values overflow in this dtype: "
        "try float32."
    )
