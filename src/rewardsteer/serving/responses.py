"""Responses in the making: rows of the decoding loop, and what is told of them.

All of this runs in the models' thread.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import ResponseGuide, stop_of
from rewardsteer.decoding.loop import Row
from rewardsteer.records import Cost
from rewardsteer.serving.text import GrowingText
from rewardsteer.serving.tickets import Answer, Done, Outbox, Piece, Ticket


class Sample:
    """One row, its text, and the response that it is for.

    Args:
        row: with its settings.
        lane: which rows it shares a batch with.
        response: what is told when the row ends.
        text: where somebody wants to see the text grow, or it may end at a stop string.
    """

    def __init__(
        self, row: Row, lane: "LaneKey", response: "Response", text: GrowingText | None
    ) -> None:
        self.row, self.lane, self.response, self._text = row, lane, response, text
        self.answer: Answer | None = None
        row.until = self._grew

    def _grew(self, token_ids: Sequence[int]) -> bool:
        """Asked after every token: whether the row ends with it."""
        if self.response.ticket.over:
            return True
        if self._text is None:
            return False
        self.response.grew(self._text.add(token_ids))
        return self._text.stopped

    def finish(self, whole: str) -> None:
        """The row has ended; its text, decoded as a whole, is known."""
        row, text, stopped = self.row, whole, self.row.finish_reason == "stop"
        if self._text is not None:
            ids = row.token_ids[:-1] if stopped else row.token_ids
            self.response.grew(self._text.finish(ids, whole))
            text, stopped = self._text.text, stopped or self._text.stopped
        self.answer = Answer(text, row.token_ids, "stop" if stopped else "length", row.cost)
        self.response.ended(self)


# A method, and the number of candidates where it asks about such.
LaneKey = tuple[str, int]


class Response:
    """One response of a request: a sample, or the best of several.

    Args:
        ticket: the request's.
        index: which of the request's responses this is.
        outbox: where pieces and the answer go.
        chooser: chooses among the samples; None: there is one.
        stream: whether text is told as it grows.
    """

    def __init__(
        self, ticket: Ticket, index: int, outbox: Outbox, chooser: ResponseGuide | None,
        *, stream: bool,
    ) -> None:
        self.ticket, self.index = ticket, index
        self.samples: list[Sample] = []
        self._outbox, self._chooser = outbox, chooser
        self._stream = stream and chooser is None
        self._missing = 0

    def add(
        self, prompt_ids: Sequence[int], draws: Any, config: DecodingConfig, lane: LaneKey,
        text: GrowingText | None,
    ) -> None:
        """Another sample; all must be there before the first one starts."""
        name = f"{self.ticket.name}/{self.index}/{len(self.samples)}"
        row = Row(name, prompt_ids, draws, config=config)
        self.samples.append(Sample(row, lane, self, text))
        self._missing += 1

    def grew(self, piece: str) -> None:
        """Tell new text."""
        if piece and self._stream:
            self._outbox.put(self.ticket, Piece(self.index, piece))

    def ended(self, sample: Sample) -> None:
        """A sample has ended; the last one's end is that of the response."""
        self._missing -= 1
        if self._missing == 0 and not self.ticket.over:
            assert sample.answer is not None
            answer = sample.answer if self._chooser is None else self._choose(self._chooser)
            self._outbox.put(self.ticket, Done(self.index, answer))

    def _choose(self, chooser: ResponseGuide) -> Answer:
        """What the method keeps, at the cost of all samples."""
        began = time.perf_counter()
        rows = [sample.row for sample in self.samples]
        [choice] = chooser.choose(
            [rows[0].prompt_ids], [[row.token_ids for row in rows]], [self.ticket.name],
            {token for row in rows for token in stop_of(row)},
        )
        if choice.error is not None:
            raise choice.error
        judging = Cost(
            rm_calls=choice.reads.calls, rm_forwards=choice.reads.forwards,
            rm_tokens=choice.reads.tokens, seconds=time.perf_counter() - began,
        )
        kept = self.samples[choice.sample].answer
        assert kept is not None, "all samples have ended"
        total = sum((row.cost for row in rows), judging)
        cost = total.model_copy(update={"new_tokens": len(kept.token_ids)})
        return replace(kept, cost=cost, reward=choice.reward)
