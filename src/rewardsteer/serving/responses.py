"""Responses in the making: rows of the decoding loop, and what is told of them.

All of this runs in the models' thread.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import ResponseGuide, stop_of
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.text import GrowingText
from rewardsteer.records import Cost
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
        # Tokens of the text as it is given out; None: all that were generated.
        self.kept_ids: list[int] | None = None
        row.until = self._grew

    def _grew(self, token_ids: Sequence[int]) -> bool:
        """Asked after every token: whether the row ends with it."""
        if self.response.ticket.over:
            return True
        if self._text is None:
            return False
        self.response.grew(self._text.add(token_ids), self.row)
        return self._text.stopped

    @property
    def given_ids(self) -> list[int]:
        """Tokens of what the client gets: without a stop string and what came with it."""
        return self.row.token_ids if self.kept_ids is None else self.kept_ids

    @property
    def longest(self) -> int:
        """Tokens that the row may come to."""
        assert self.row.config is not None, "rows bring their settings"
        return len(self.row.prompt_ids) + self.row.config.max_new_tokens

    def finish(self) -> None:
        """The row has ended."""
        row, whole = self.row, self.response.text_of(self.row)
        text, stopped = whole, row.finish_reason == "stop"
        if self._text is not None:
            ids = row.token_ids[:-1] if stopped else row.token_ids
            self.response.grew(self._text.finish(ids, whole), row)
            text = self._text.text
            if self._text.stopped:
                stopped, self.kept_ids = True, self._text.kept(row.token_ids)
        self.answer = Answer(
            text, row.token_ids, "stop" if stopped else "length", row.cost, row.logprobs,
            len(row.token_ids),
        )
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
        text_of: a finished row's text, decoded as a whole.
    """

    def __init__(
        self, ticket: Ticket, index: int, outbox: Outbox, chooser: ResponseGuide | None,
        *, stream: bool, text_of: Callable[[Row], str],
    ) -> None:
        self.ticket, self.index, self.text_of = ticket, index, text_of
        self.samples: list[Sample] = []
        self._outbox, self._chooser = outbox, chooser
        self._stream = stream and chooser is None
        self._missing = 0
        # Tokens that pieces have told of.
        self._told = 0

    def add(
        self, prompt_ids: Sequence[int], draws: Any, config: DecodingConfig, lane: LaneKey,
        text: GrowingText | None, top: int | None = None,
    ) -> None:
        """Another sample; all must be there before the first one starts."""
        name = f"{self.ticket.name}/{self.index}/{len(self.samples)}"
        row = Row(name, prompt_ids, draws, config=config, top=top)
        self.samples.append(Sample(row, lane, self, text))
        self._missing += 1

    def grew(self, piece: str, row: Row) -> None:
        """Tell new text."""
        if piece and self._stream:
            new, self._told = slice(self._told, len(row.token_ids)), len(row.token_ids)
            self._outbox.put(
                self.ticket, Piece(self.index, piece, row.token_ids[new], row.logprobs[new])
            )

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
            [rows[0].prompt_ids], [[sample.given_ids for sample in self.samples]],
            [self.ticket.name],
            {token for sample in self.samples if sample.kept_ids is None
             for token in stop_of(sample.row)},
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
        generated = sum(len(row.token_ids) for row in rows)
        return replace(kept, cost=cost, generated=generated, reward=choice.reward)
