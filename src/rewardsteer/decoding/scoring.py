"""Rewards for many strategies that ask at the same time.

Complete responses are scored in one batch. For a growing sample the reward model's cache is kept,
so that a reward, or a similarity to a goal, costs only the new tokens. Where the reward model gets
texts, its cache is kept as far as its own tokens are unchanged.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rewardsteer.decoding.asking import Ask, Row, as_row, text_tokens
from rewardsteer.decoding.growing import GrowingReads, Value
from rewardsteer.decoding.memory import out_of_memory, translate_oom
from rewardsteer.decoding.running import Activity, settle
from rewardsteer.decoding.sample import Sample
from rewardsteer.errors import DataError, NonFiniteError, RewardsteerError
from rewardsteer.models.compatibility import reads_tokens
from rewardsteer.records import Cost

# Turns of the loop in which other strategies can join a batch of questions.
_TURNS = 4
_REMEDY = (
    "while the reward model read a response alone; lower max_new_tokens, shorten the prompt, or "
    "give the reward model a device of its own"
)


@dataclass(frozen=True)
class Answer:
    """A reward, or similarities, and what they cost."""

    values: Sequence[float]
    cost: Cost


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
        self._scorer, self._batch_size, self._texts = scorer, batch_size, texts
        self._activity, self._threaded = activity, threaded
        self._tokens = reads_tokens(scorer)
        self._growing = GrowingReads(scorer) if self._tokens else None
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
        if self._growing is not None:
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
        """The answer or the error of each question; questions of one kind share a call."""
        answers: dict[int, Answer | Exception] = {}
        alike: dict[Any, list[Any]] = {}
        for ask in asks:
            if self._growing is None:
                read_text = self._text_values if ask.rival is None else self._preferences
                alike.setdefault((read_text, ask.closed), []).append(ask)
                continue
            try:
                row = as_row(ask, self._scorer, texts=self._texts)
            except RewardsteerError as error:
                answers[id(ask)] = error
                continue
            read = self._growing_values if self._grows(row) else self._whole_values
            alike.setdefault((read, id(ask.goal)), []).append(row)
        for (read, _), some in alike.items():
            began = time.perf_counter()
            found = self._values(read, some)
            share = (time.perf_counter() - began) / len(some)
            for asked, one in zip(some, found, strict=True):
                answers[id(_ask_of(asked))] = one if isinstance(one, Exception) else Answer(
                    one.values, Cost(rm_calls=1, rm_forwards=one.forwards, rm_tokens=one.tokens,
                                     seconds=share),
                )
        return [answers[id(ask)] for ask in asks]

    def _values(
        self, read: Callable[[Sequence[Any]], list[Value | Exception]], asked: Sequence[Any]
    ) -> list[Value | Exception]:
        try:
            return read(asked)
        except Exception as error:
            if self._growing is not None:
                # After a failure the cache may be incomplete.
                self._growing = GrowingReads(self._scorer)
            half = len(asked) // 2
            if not out_of_memory(error) or not half:
                return [translate_oom(error, _REMEDY)] * len(asked)
        return self._values(read, asked[:half]) + self._values(read, asked[half:])

    def _grows(self, row: Row) -> bool:
        """Whether a row is scored through its cache: it has one, or will be scored again."""
        ask, growing = row.ask, self._growing
        assert growing is not None
        if ask.told is not None and (self._texts or ask.sample.length - ask.told != 1):
            return False
        if ask.goal is not None:
            # Some goals depend on the prompt's state, which is read with the whole.
            return ask.goal.keys is None and len(row.response) > 0
        over = ask.sample.finish_reason is not None and not ask.prompt_alone
        return self._scorer.scores_last_token and not (over and not growing.knows(ask.sample))

    def _growing_values(self, rows: Sequence[Row]) -> list[Value | Exception]:
        assert self._growing is not None
        found = self._growing.read(
            [row.ask.sample for row in rows], [row.ids for row in rows], rows[0].ask.goal
        )
        return [_checked(one, row.ask) for one, row in zip(found, rows, strict=True)]

    def _whole_values(self, rows: Sequence[Row]) -> list[Value | Exception]:
        prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
        goal = rows[0].ask.goal
        try:
            if goal is None:
                rewards = self._scorer.score_ids(prompts, responses, batch_size=self._batch_size)
                values: list[Sequence[float]] = [[float(reward)] for reward in rewards]
            else:
                read = self._scorer.token_scores_ids(
                    prompts, responses, batch_size=self._batch_size, goal=goal
                )
                values = [
                    self._asked(row.ask, one.similarities.tolist())
                    for row, one in zip(rows, read, strict=True)
                ]
        except (NonFiniteError, DataError) as error:
            return self._each(self._whole_values, rows, error)
        return [
            _checked(Value(own, 1, len(row.ids)), row.ask)
            for row, own in zip(rows, values, strict=True)
        ]

    def _text_values(self, asks: Sequence[Ask]) -> list[Value | Exception]:
        try:
            rewards = self._scorer.score(
                [ask.prompt.given for ask in asks], [ask.text for ask in asks],
                batch_size=self._batch_size, closed=asks[0].closed,
            )
        except (NonFiniteError, DataError) as error:
            return self._each(self._text_values, asks, error)
        return [
            _checked(Value([float(reward)], 1, text_tokens(ask, self._scorer)), ask)
            for ask, reward in zip(asks, rewards, strict=True)
        ]

    def _preferences(self, asks: Sequence[Ask]) -> list[Value | Exception]:
        """Probabilities that samples are preferred to their rivals, over both orders."""
        try:
            found = self._scorer.preferences(
                [ask.prompt.given for ask in asks], [ask.text for ask in asks],
                [ask.rival.text for ask in asks if ask.rival is not None],
                batch_size=self._batch_size,
            )
        except (NonFiniteError, DataError) as error:
            return self._each(self._preferences, asks, error)
        return [
            Value([float(chance)], 2, 2 * text_tokens(ask, self._scorer))
            for ask, chance in zip(asks, found, strict=True)
        ]

    def _each(
        self, read: Callable[[Sequence[Any]], list[Value | Exception]], asked: Sequence[Any],
        error: RewardsteerError,
    ) -> list[Value | Exception]:
        """Answers one by one, so that only the row with the error fails."""
        if len(asked) > 1:
            return [read([one])[0] for one in asked]
        name = _ask_of(asked[0]).prompt.id
        return [type(error)(f"While judging a response to {name}: {error}")]

    def _asked(self, ask: Ask, similarities: Sequence[float]) -> Sequence[float]:
        """The similarities that a question asks for."""
        if ask.told is None:
            # -1: the response has no token of text yet.
            return similarities[-1:] or [-1.0]
        unsure = self._texts and ask.sample.finish_reason is None
        return similarities[ask.told : len(similarities) - unsure]


def _ask_of(asked: Ask | Row) -> Ask:
    return asked.ask if isinstance(asked, Row) else asked


def _checked(found: Value, ask: Ask) -> Value | Exception:
    wrong = [value for value in found.values if not math.isfinite(value)]
    return _not_a_number(wrong[0], ask) if wrong else found


def _not_a_number(value: float, ask: Ask) -> NonFiniteError:
    return NonFiniteError(
        f"The reward model gave {value} at step {max(1, len(ask.sample.token_ids))} of row "
        f"{ask.prompt.id!r}; the checkpoint may be damaged, or its values overflow in this dtype: "
        "try float32."
    )
