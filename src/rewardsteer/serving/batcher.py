"""The thread that owns the models: rows enter while others run, completions are scored between.

At every turn, rows that wait take the places that are free, every lane adds a token to each of its
rows, some completions are scored, and what happened is told to those who wait for it. Requests that
nobody waits for any more lose their places at once, and with the last row of a lane its caches go.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.guide import TokenGuide
from rewardsteer.serving.admission import Admission
from rewardsteer.serving.calls import Calls, Steps
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import full
from rewardsteer.serving.failures import is_fatal, is_out_of_memory, log_failure
from rewardsteer.serving.lanes import Lane
from rewardsteer.serving.responses import LaneKey, Response, Sample
from rewardsteer.serving.rewards import RewardJob, RewardQueue, score_together
from rewardsteer.serving.tickets import Failed, Outbox, Ticket

# Ends of rows from which the time of waiting is guessed, and the longest guess in seconds.
_REMEMBERED = 64
_LONGEST_WAIT = 60
# Seconds in which the thread's present turn may end.
_CLOSING_SECONDS = 20


class Batcher:
    """A queue, its bounds, and the thread that works it off.

    Args:
        engine: the policy; None: rewards alone.
        scorer: the reward model; None: generation alone.
        config: places and bounds.
        guide_of: makes the token guide of a lane.

    Attributes:
        outbox: what is told to the requests.
        broken: the accelerator failed for good; a new process is needed.
        steps, tokens, scored: turns of lanes, tokens generated and completions scored so far.
    """

    def __init__(
        self, engine: HfEngine | None, scorer: Any, config: ServingConfig,
        guide_of: Callable[[LaneKey], TokenGuide],
    ) -> None:
        self._engine, self._scorer, self._config = engine, scorer, config
        self._guide_of = guide_of
        self.outbox = Outbox()
        self.broken = False
        self.steps = self.tokens = self.scored = 0
        self._changed = threading.Condition()
        self._admission = Admission(config)
        self._rewards = RewardQueue()
        self._calls = Calls(
            self.outbox, lambda ticket, error, log: self._fail(ticket, error, log=log)
        )
        self._lanes: dict[LaneKey, Lane] = {}
        self._working: dict[str, Sample] = {}
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after its present turn; what waits is given up."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            # A turn may be long; the thread ends with the process at the latest.
            self._thread.join(_CLOSING_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread works, and with models that do."""
        return self._thread.is_alive() and not self.broken

    @property
    def busy(self) -> int:
        """Rows that are being decoded."""
        return len(self._working)

    @property
    def lanes(self) -> int:
        """Lanes that hold rows, and their caches."""
        return len(self._lanes)

    @property
    def waiting(self) -> int:
        """Rows that wait for a place."""
        return len(self._admission)

    @property
    def waiting_rewards(self) -> int:
        """Completions that wait to be scored."""
        return len(self._rewards)

    @property
    def waiting_calls(self) -> int:
        """Other work that waits."""
        return len(self._calls)

    def generate(self, responses: Sequence[Response]) -> None:
        """Take a request's responses.

        Raises:
            ApiError: 429, there is no room for all of them.
        """
        samples = [sample for response in responses for sample in response.samples]
        with self._changed:
            # Free places count: an idle server takes what it can begin with, whatever its queue.
            free = max(0, self._config.places - len(self._working))
            self._require(len(self._admission) + len(samples) <= self._config.queue + free)
            self._admission.put(samples)
            self._changed.notify()

    def score(self, job: RewardJob) -> None:
        """Take a request for rewards; raises `ApiError` 429 as `generate` does."""
        with self._changed:
            count = len(self._rewards) + len(job.response_ids)
            self._require(count <= self._config.reward_queue)
            self._rewards.put(job)
            self._changed.notify()

    def call(self, ticket: Ticket, steps: Steps, *, most: int) -> None:
        """Take other work with the models, of which a step is done at every turn; raises `ApiError`
        429 where there is so much of it."""
        with self._changed:
            self._require(len(self._calls) < most)
            self._calls.put(ticket, steps)
            self._changed.notify()

    def give_up(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more."""
        if ticket.over:
            return
        ticket.over = True
        with self._changed:
            self._admission.drop(ticket)
            self._rewards.drop(ticket)
            self._calls.drop(ticket)

    def _require(self, room: bool) -> None:
        if not room:
            raise full(self._seconds_to_wait())

    def _seconds_to_wait(self) -> int:
        """Until what waits now may have been taken, guessed from how fast rows ended lately."""
        if len(self._ends) < 2:
            return 1
        rate = len(self._ends) / max(1e-3, time.monotonic() - self._ends[0])
        return max(1, min(_LONGEST_WAIT, math.ceil(len(self._admission) / rate)))

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._has_work():
                    self._changed.wait()
                if self._closed:
                    return
                entering = self._enter()
                scoring = self._rewards.take(self._config.reward_tokens)
                call = self._calls.take()
            self._generate(entering)
            if scoring:
                self._score(scoring)
            if call is not None:
                self._call(*call)
            self.outbox.flush()

    def _has_work(self) -> bool:
        return bool(self._admission or self._working or self._rewards or self._calls)

    def _enter(self) -> dict[LaneKey, list[Sample]]:
        """Rows that take places now, by lane."""
        self._admission.went_well()
        entering = self._admission.take(self._working.values())
        for samples in entering.values():
            self._working |= {sample.row.name: sample for sample in samples}
        return entering

    def _generate(self, entering: dict[LaneKey, list[Sample]]) -> None:
        assert self._engine is not None or not entering
        for key in list(dict.fromkeys([*self._lanes, *entering])):
            try:
                if key not in self._lanes:
                    self._lanes[key] = self._open(key)
                lane = self._lanes[key]
                finished = lane.advance([sample.row for sample in entering.get(key, ())])
                self.steps += 1
                self.tokens += lane.busy + len(finished)
                for row in finished:
                    self._end(self._working.pop(row.name))
                if not lane.busy:
                    del self._lanes[key]
            except Exception as error:
                # A lane that failed in the midst of a step holds nothing that can be trusted.
                self._lanes.pop(key, None)
                self._part(key, error)

    def _open(self, key: LaneKey) -> Lane:
        assert self._engine is not None
        return Lane(self._engine, self._guide_of(key))

    def _part(self, key: LaneKey, error: Exception) -> None:
        """A step of several rows failed: each takes it alone. Those that fail alone too are done
        with; the others wait in front, to go on together. What the failed step and the new reading
        of their prefixes took is not part of their cost."""
        log_failure(error)
        rows = [sample for sample in self._working.values() if sample.lane == key]
        for sample in rows:
            del self._working[sample.row.name]
        if len(rows) == 1 or is_fatal(error):
            for ticket in dict.fromkeys(sample.response.ticket for sample in rows):
                self._fail(ticket, error, log=False)
            self.broken = self.broken or is_fatal(error)
            return
        left = [sample for sample in rows if self._alone(key, sample)]
        with self._changed:
            if is_out_of_memory(error):
                self._admission.too_many(len(rows))
            self._admission.put_back(
                sample for sample in left if not sample.response.ticket.over
            )

    def _alone(self, key: LaneKey, sample: Sample) -> bool:
        """A step of one row; whether it is to go on."""
        if sample.response.ticket.over:
            return False
        try:
            finished = self._open(key).advance([sample.row])
        except Exception as error:
            self._fail(sample.response.ticket, error)
            return False
        self.steps += 1
        self.tokens += 1
        for _ in finished:
            self._end(sample)
        return not finished

    def _end(self, sample: Sample) -> None:
        self._ends.append(time.monotonic())
        if sample.response.ticket.over:
            return
        if sample.row.error is not None:
            self._fail(sample.response.ticket, sample.row.error)
            return
        try:
            sample.finish()
        except Exception as error:
            self._fail(sample.response.ticket, error)

    def _fail(self, ticket: Ticket, error: Exception, *, log: bool = True) -> None:
        if log:
            log_failure(error)
        self.outbox.put(ticket, Failed(error))
        self.give_up(ticket)

    def _score(self, scoring: list[tuple[RewardJob, int]]) -> None:
        for ticket, error in score_together(
            self._scorer, scoring, self.outbox, self._config.reward_tokens
        ):
            self._fail(ticket, error)
        self.scored += len(scoring)

    def _call(self, ticket: Ticket, steps: Steps) -> None:
        if ticket.over:
            return
        if self._calls.step(ticket, steps):
            with self._changed:
                self._calls.drop(ticket)
