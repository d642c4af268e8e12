"""Answers of a reward model to questions about samples, in as few calls as possible."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rewardsteer.decoding.asking import Ask, Row, as_row, text_tokens
from rewardsteer.decoding.growing import GrowingReads, Value
from rewardsteer.decoding.memory import out_of_memory, translate_oom
from rewardsteer.decoding.sample import Sample
from rewardsteer.errors import DataError, NonFiniteError, RewardsteerError
from rewardsteer.models.compatibility import reads_tokens
from rewardsteer.records import Cost

_REMEDY = (
    "while the reward model read a response alone; lower max_new_tokens, shorten the prompt, or "
    "give the reward model a device of its own"
)


@dataclass(frozen=True)
class Answer:
    """A reward, or similarities, and what they cost."""

    values: Sequence[float]
    cost: Cost


class _Call(NamedTuple):
    """What questions have in common that a call of the reward model answers together.

    Attributes:
        kind: ``growing`` is through the cache of growing samples; ``whole`` is not.
        closed: whether texts are closed as in training.
        goal: id of the goal state; None: rewards.
    """

    kind: Literal["texts", "preferences", "growing", "whole"]
    closed: bool = False
    goal: int | None = None


class Answers:
    """A reward model that answers questions; see `rewardsteer.decoding.scoring.Scoring`."""

    def __init__(self, scorer: Any, *, batch_size: int, texts: bool) -> None:
        self._scorer, self._batch_size, self._texts = scorer, batch_size, texts
        self._growing = GrowingReads(scorer) if reads_tokens(scorer) else None
        self._reads: dict[str, Callable[[Sequence[Row]], list[Value]]] = {
            "texts": self._text_values, "preferences": self._preferences,
            "growing": self._growing_values, "whole": self._whole_values,
        }

    def forget(self, samples: Sequence[Sample]) -> None:
        if self._growing is not None:
            self._growing.forget(samples)

    def of(self, asks: Sequence[Ask]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        calls: dict[_Call, list[Row]] = {}
        for ask in asks:
            try:
                row = self._row(ask)
            except RewardsteerError as error:
                answers[id(ask)] = error
            else:
                calls.setdefault(self._call_of(row), []).append(row)
        for call, rows in calls.items():
            began = time.perf_counter()
            found = self._values(self._reads[call.kind], rows)
            share = (time.perf_counter() - began) / len(rows)
            for row, one in zip(rows, found, strict=True):
                answers[id(row.ask)] = one if isinstance(one, Exception) else Answer(
                    one.values, Cost(rm_calls=1, rm_forwards=one.forwards, rm_tokens=one.tokens,
                                     seconds=share),
                )
        return [answers[id(ask)] for ask in asks]

    def _row(self, ask: Ask) -> Row:
        if self._growing is None:
            return Row(ask)
        return as_row(ask, self._scorer, texts=self._texts)

    def _call_of(self, row: Row) -> _Call:
        if self._growing is None:
            return _Call("preferences" if row.ask.rival else "texts", closed=row.ask.closed)
        goal = None if row.ask.goal is None else id(row.ask.goal)
        return _Call("growing" if self._grows(row, self._growing) else "whole", goal=goal)

    def _grows(self, row: Row, growing: GrowingReads) -> bool:
        """Whether a row is scored through its cache: it has one, or will be scored again."""
        ask = row.ask
        if ask.told is not None and (self._texts or ask.sample.length - ask.told != 1):
            return False
        if ask.goal is not None:
            # Some goals depend on the prompt's state, which is read with the whole.
            return ask.goal.keys is None and len(row.response) > 0
        over = ask.sample.finish_reason is not None and not ask.prompt_alone
        return self._scorer.scores_last_token and not (over and not growing.knows(ask.sample))

    def _values(
        self, read: Callable[[Sequence[Row]], list[Value]], rows: Sequence[Row]
    ) -> list[Value | Exception]:
        """The value or the error of each row; where a call fails, it is repeated with fewer."""
        try:
            return [_checked(one, row.ask) for one, row in zip(read(rows), rows, strict=True)]
        except (NonFiniteError, DataError) as error:
            if len(rows) == 1:
                name = rows[0].ask.prompt.id
                return [type(error)(f"While judging a response to {name}: {error}")]
            # Only the row with the error fails.
            parts = [[row] for row in rows]
        except Exception as error:
            if self._growing is not None:
                # After a failure the cache may be incomplete.
                self._growing = GrowingReads(self._scorer)
            half = len(rows) // 2
            if not out_of_memory(error) or not half:
                return [translate_oom(error, _REMEDY)] * len(rows)
            parts = [list(rows[:half]), list(rows[half:])]
        return [value for part in parts for value in self._values(read, part)]

    def _growing_values(self, rows: Sequence[Row]) -> list[Value]:
        assert self._growing is not None
        return self._growing.read(
            [row.ask.sample for row in rows], [row.ids for row in rows], rows[0].ask.goal
        )

    def _whole_values(self, rows: Sequence[Row]) -> list[Value]:
        prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
        goal, size = rows[0].ask.goal, self._batch_size
        if goal is None:
            rewards = self._scorer.score_ids(prompts, responses, batch_size=size)
            values: list[Sequence[float]] = [[float(reward)] for reward in rewards]
        else:
            read = self._scorer.token_scores_ids(prompts, responses, batch_size=size, goal=goal)
            values = [
                self._asked(row.ask, one.similarities.tolist())
                for row, one in zip(rows, read, strict=True)
            ]
        return [Value(own, 1, len(row.ids)) for row, own in zip(rows, values, strict=True)]

    def _asked(self, ask: Ask, similarities: Sequence[float]) -> Sequence[float]:
        """The similarities that a question asks for."""
        if ask.told is None:
            # -1: the response has no token of text yet.
            return similarities[-1:] or [-1.0]
        unsure = self._texts and ask.sample.finish_reason is None
        return similarities[ask.told : len(similarities) - unsure]

    def _text_values(self, rows: Sequence[Row]) -> list[Value]:
        asks = [row.ask for row in rows]
        rewards = self._scorer.score(
            [ask.prompt.given for ask in asks], [ask.text for ask in asks],
            batch_size=self._batch_size, closed=asks[0].closed,
        )
        return [
            Value([float(reward)], 1, text_tokens(ask, self._scorer))
            for ask, reward in zip(asks, rewards, strict=True)
        ]

    def _preferences(self, rows: Sequence[Row]) -> list[Value]:
        """Probabilities that samples are preferred to their rivals, over both orders."""
        asks = [row.ask for row in rows]
        found = self._scorer.preferences(
            [ask.prompt.given for ask in asks], [ask.text for ask in asks],
            [ask.rival.text for ask in asks if ask.rival is not None],
            batch_size=self._batch_size,
        )
        return [
            Value([float(chance)], 2, 2 * text_tokens(ask, self._scorer))
            for ask, chance in zip(asks, found, strict=True)
        ]


def _checked(found: Value, ask: Ask) -> Value | Exception:
    wrong = [value for value in found.values if not math.isfinite(value)]
    if not wrong:
        return found
    return NonFiniteError(
        f"The reward model gave {wrong[0]} at step {max(1, len(ask.sample.token_ids))} of row "
        f"{ask.prompt.id!r}; the checkpoint may be damaged, or its values overflow in this dtype: "
        "try float32."
    )
