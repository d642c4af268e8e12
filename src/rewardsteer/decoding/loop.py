"""The batched decoding loop: admit, read, pick; rows that finish give their places to new ones.

`decode` takes rows from an iterable; whoever has rows that come at any time drives a `Batch`.

A row that cannot go on (its logits, rewards or scores are no numbers, or what is asked after its
tokens raises) fails alone: it leaves among the finished rows with `Row.error` set, and the others
are what they would have been without it.

Both know a reader that answers with the policy's next-token logits (`PrefixReader`) and a guide's
session, no model. Rows of different ages and lengths share a batch. A row that has finished leaves
at once, and a new one is read beside the others, so what the counters say of a row is exactly what
that row cost.

The continuous batching of transformers (5.19) does not serve here: it takes no logits processors
but those it makes of the generation settings, tells them of a row its last token alone, and draws
from one generator for all, so that a row's draws would depend on what else is in the batch.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import GuideSession, Prefix, Reads, Reviewer, check_numbers
from rewardsteer.decoding.penalties import penalized
from rewardsteer.decoding.sampling import TokenLogprob, log_probabilities, pick_each
from rewardsteer.decoding.text import GrowingText
from rewardsteer.models.prefix_state import NEW, left_pad
from rewardsteer.records import Cost

# New rows enter once this share of the places is free. An entry is a forward pass of its own; with
# many places some row ends at nearly every step, and one pass for each would double their number.
_FREE_SHARE = 8


@dataclass
class Row:
    """One response in the making.

    Attributes:
        name: the request's id.
        prompt_ids: at least one token.
        draws: the row's own random numbers.
        token_ids: what was generated, end-of-text included.
        finish_reason: ``stop`` once a stop token was generated.
        cost: known once the row has finished.
        until: asked after every token with ``token_ids``; true ends the row, for length.
        text: as it grows, where stop strings of the settings may end the row.
        log_probability: a number to which the policy's log-probabilities of the tokens are added,
            at temperature 1 over the whole vocabulary; None: nobody asks for them.
        top: record the tokens' log-probabilities in ``logprobs``, each with so many of the
            likeliest tokens; None: record nothing.
        config: settings of sampling and of ends of this row; None: the batch's.
        watch: asked after every token with what a guide that watches thinks of the response (higher
            is better); true drops the row. None: it is not watched.
        dropped: it was ended by a guide, for it was not good enough.
        waits: set by a guide: it gets no token in this step.
        reward: of the whole response, where a guide read one.
        sample: which of the responses to its prompt this is.
        error: why the row failed; it has left the batch, and ``token_ids`` are those before. None:
            it has not.
    """

    name: str
    prompt_ids: Sequence[int]
    draws: random.Random
    token_ids: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    cost: Cost = field(default_factory=Cost)
    until: Callable[[Sequence[int]], bool] | None = None
    text: GrowingText | None = None
    log_probability: float | None = None
    top: int | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    config: DecodingConfig | None = None
    watch: Callable[[float], bool] | None = None
    dropped: bool = False
    waits: bool = False
    reward: float | None = None
    sample: int = 0
    error: Exception | None = None


def decode(
    reader: Any, session: GuideSession, rows: Iterable[Row], config: DecodingConfig,
    stop_ids: frozenset[int], *, places: int,
) -> Iterator[Row]:
    """Generate responses, filling in the rows.

    Args:
        reader: ``sync(ids, mask)`` answers with logits ``[B, V]``; counts ``forwards``, ``tokens``
            of each row, from 0 for a new one.
        session: the guide's, fresh.
        rows: taken one by one as places become free.
        config: settings of sampling and of ends, for rows that bring none.
        stop_ids: tokens that end a response.
        places: rows decoded together.

    Yields:
        the rows in the order given, each once it and all before it have finished or failed (see
        `Row.error`). So at most ``places · max_new_tokens`` finished ones wait at a time.
    """
    begun: deque[Row] = deque()
    finished: set[int] = set()

    def begin() -> Iterator[Row]:
        for row in rows:
            begun.append(row)
            yield row

    batch = Batch(reader, session, config, stop_ids)
    waiting = begin()
    while True:
        entering = list(islice(waiting, entries(batch.busy, places)))
        if not entering and not batch.busy:
            return
        finished.update(id(row) for row in batch.advance(entering))
        while begun and id(begun[0]) in finished:
            finished.remove(id(begun[0]))
            yield begun.popleft()


def entries(busy: int, places: int) -> int:
    """How many new rows may enter now: none while too few places are free to be worth a pass."""
    free = places - busy
    return free if free >= max(1, places // _FREE_SHARE) or not busy else 0


@dataclass
class _Seat:
    """A row at its place, and what the guide had read at that place when it came."""

    row: Row
    reads: Reads = field(default_factory=Reads)
    seconds: float = 0.0
    drawn: int = 0


class Batch:
    """The rows at work, each at its place; arguments as those of `decode`."""

    def __init__(
        self, reader: Any, session: GuideSession, config: DecodingConfig, stop_ids: frozenset[int]
    ) -> None:
        self._reader, self._session = reader, session
        self._reviewer = session if isinstance(session, Reviewer) else None
        self._config, self._stop_ids = config, stop_ids
        self._seats: list[_Seat | None] = []
        self._ids = self._mask = torch.empty(0, 0, dtype=torch.long)

    @property
    def busy(self) -> int:
        """Rows that have not finished."""
        return sum(seat is not None for seat in self._seats)

    @torch.no_grad()
    def advance(self, entering: Sequence[Row]) -> list[Row]:
        """Let rows enter, add a token to every row; the rows that finished with it, or failed (see
        `Row.error`).

        There must be a row. After an exception the batch is of no use.
        """
        began = time.perf_counter()
        if entering or None in self._seats:
            self._change_places(entering)
        seats = [seat for seat in self._seats if seat is not None]
        rows = [seat.row for seat in seats]
        prefix = Prefix(
            self._ids, self._mask, [len(row.token_ids) for row in rows],
            [row.name for row in rows], rows,
        )
        logits = self._reader.sync(self._ids, self._mask)
        scores = self._session.scores(prefix, logits)
        # Only now: looking at the logits earlier would keep an accelerator waiting for the guide.
        check_numbers(logits, scores, prefix)
        for place in prefix.failed:
            rows[place].waits = True
        tokens = _pick_for(rows, scores, self._config, self._stop_ids)
        _add_log_probabilities(rows, logits, tokens)
        ended = [
            self._add(row, token) or place in prefix.failed
            for place, (row, token) in enumerate(zip(rows, tokens, strict=True))
        ]
        self._grow(prefix, tokens)
        if self._reviewer is not None:
            prefix = replace(prefix, ids=self._ids, mask=self._mask, changed=False)
            ended = self._reviewer.review(prefix, ended)
            self._grow(prefix, None)
        for place, error in prefix.failed.items():
            rows[place].error, ended[place] = error, True
        share = (time.perf_counter() - began) / len(rows)
        finished = []
        for place, (seat, ends, token) in enumerate(zip(seats, ended, tokens, strict=True)):
            seat.seconds += share
            seat.drawn += token is not None
            if ends:
                seat.row.cost += self._cost(place, seat)
                self._seats[place] = None
                finished.append(seat.row)
        return finished

    def _add(self, row: Row, token: int | None) -> bool:
        """Add a token to a row, unless it waits; whether the row ends."""
        if token is None:
            return False
        row.token_ids.append(token)
        try:
            return self._ends(row, token)
        except Exception as error:
            row.error = error
            return True

    def _grow(self, prefix: Prefix, tokens: Sequence[int | None] | None) -> None:
        """Bring the prefixes up to date, after every row got a token or a guide changed some."""
        if prefix.changed or (tokens is not None and None in tokens):
            self._ids, self._mask = _prefixes(prefix.rows)
        elif tokens is not None:
            self._ids = torch.cat([self._ids, torch.tensor(tokens)[:, None]], dim=1)
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)

    def _change_places(self, entering: Sequence[Row]) -> None:
        """Rows that enter take the places of those that left, or come last. A place for which there
        is none goes to the last row: to move that one costs less than to close up."""
        coming = deque((NEW, _Seat(row)) for row in entering)
        before = list(enumerate(self._seats))
        after: list[tuple[int, _Seat]] = []
        while len(after) < len(before):
            place, seat = before[len(after)]
            if seat is None:
                place, seat = coming.popleft() if coming else before.pop()
            if seat is not None:
                after.append((place, seat))
        after += coming
        if self._seats:
            places = [place for place, _ in after]
            self._reader.select(places)
            self._session.select(places)
            for place, (origin, seat) in enumerate(after):
                if origin == NEW:
                    seat.reads = self._session.reads(place)
        self._seats = [seat for _, seat in after]
        self._ids, self._mask = _prefixes([seat.row for _, seat in after])

    def _ends(self, row: Row, token: int) -> bool:
        config = row.config or self._config
        if token in config.stop_token_ids or (token in self._stop_ids and not config.ignore_eos):
            row.finish_reason = "stop"
            return True
        if row.text is not None:
            row.text.add(row.token_ids)
            if row.text.stopped:
                return True
        if len(row.token_ids) >= config.max_new_tokens:
            return True
        return row.until is not None and row.until(row.token_ids)

    def _cost(self, place: int, seat: _Seat) -> Cost:
        reads = self._session.reads(place)
        return Cost(
            new_tokens=len(seat.row.token_ids) - seat.row.cost.new_tokens,
            lm_calls=seat.drawn,
            lm_forwards=self._reader.forwards[place],
            lm_tokens=self._reader.tokens[place],
            rm_calls=reads.calls - seat.reads.calls,
            rm_forwards=reads.forwards - seat.reads.forwards,
            rm_tokens=reads.tokens - seat.reads.tokens,
            seconds=seat.seconds,
        )


def _prefixes(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    return left_pad([[*row.prompt_ids, *row.token_ids] for row in rows])


def _pick_for(
    rows: Sequence[Row], scores: Tensor, config: DecodingConfig, stop_ids: frozenset[int]
) -> Sequence[int | None]:
    """Next tokens of the rows, None for those that wait, once."""
    active = [place for place, row in enumerate(rows) if not row.waits]
    if len(active) < len(rows):
        tokens: list[int | None] = [None] * len(rows)
        if active:
            some = _pick_for([rows[place] for place in active], scores[active], config, stop_ids)
            for place, token in zip(active, some, strict=True):
                tokens[place] = token
        for row in rows:
            row.waits = False
        return tokens
    configs = [row.config or config for row in rows]
    scores = penalized(scores, rows, configs, stop_ids)
    return pick_each(scores, [row.draws for row in rows], configs)


def _add_log_probabilities(
    rows: Sequence[Row], logits: Tensor, tokens: Sequence[int | None]
) -> None:
    """Record the tokens' log-probabilities for the rows that ask for them; logits ``[B, V]``."""
    asking = [
        (place, row, token) for place, (row, token) in enumerate(zip(rows, tokens, strict=True))
        if token is not None and (row.log_probability is not None or row.top is not None)
    ]
    if not asking:
        return
    places, _, drawn = zip(*asking, strict=True)
    found = log_probabilities(
        logits[list(places)], drawn, max(row.top or 0 for _, row, _ in asking)
    )
    for (_, row, _), one in zip(asking, found, strict=True):
        if row.log_probability is not None:
            row.log_probability += one.value
        if row.top is not None:
            row.logprobs.append(TokenLogprob(one.value, one.best[: row.top]))
