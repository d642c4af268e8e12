"""The thread that owns the models: an event loop on which the engine takes its steps.

Each request is a program there. Responses grow together in the engine's batches; between the
engine's steps, completions are scored and other work is done, a piece at a time. A program whose
client has left is cancelled, and its rows are freed with the next step.
"""

import asyncio
import functools
import math
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from rewardsteer.decoding.answer import run, scoring_beside
from rewardsteer.decoding.running import Program
from rewardsteer.decoding.sample import Sample
from rewardsteer.errors import RewardsteerError
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import as_api_error, full, is_fatal, log_failure, upstream
from rewardsteer.serving.handles import (
    Finished,
    Outbox,
    RequestHandle,
    Response,
    Result,
    TextDelta,
    answer_of,
)
from rewardsteer.serving.rewards import RewardJob, RewardQueue, score_together
from rewardsteer.serving.threads import LoopThread, beside

# A step is what comes between two yields; what the generator returns is the request's value.
Steps = Generator[None, None, Any]

# Number of finished responses from which the waiting time is estimated, and the longest estimate in
# seconds.
_REMEMBERED = 64
_LONGEST_WAIT = 60
# Time limit for the thread's current step at the end.
_CLOSING_SECONDS = 20


class Worker:
    """Runs requests as programs, within limits.

    Args:
        engine: runs the policy; None: rewards alone.
        scorer: the reward model; None: generation alone.
        drafter: runs a second policy, on the same loop; None: there is none.

    Attributes:
        outbox: events for the requests.
        broken: whether the accelerator failed for good; a new process is needed.
        scored: completions scored so far.
    """

    def __init__(
        self, engine: Any, scorer: Any, config: ServingConfig, *, drafter: Any = None
    ) -> None:
        self._engine, self._scorer, self._config = engine, scorer, config
        self._engines = [one for one in (engine, drafter) if one is not None]
        threads = torch.get_num_threads()
        # torch's number of threads is a setting of each thread.
        self._loop = LoopThread("models", lambda: torch.set_num_threads(threads))
        self.outbox = Outbox()
        self.broken = False
        self.scored = 0
        self._rows = _Quota(config.places + config.queue)
        self._reward_rows = _Quota(config.reward_queue)
        self._called = _Quota(0)
        self._rewards = RewardQueue()
        self._programs: dict[RequestHandle, list[Future[None]]] = {}
        self._turn = asyncio.Lock()
        self._scoring: asyncio.Task[None] | None = None
        self._remote = getattr(scorer, "remote", False)
        self._judge = None if scorer is None or engine is None else scoring_beside(
            engine, scorer, config.places
        )
        for one in self._engines:
            one.on_failure = self._note
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """End the thread; waiting requests are cancelled."""
        self._loop.close(_CLOSING_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and the accelerator works."""
        return self._loop.alive and not self.broken

    @property
    def busy(self) -> int:
        return sum(one.busy for one in self._engines)

    @property
    def batches(self) -> int:
        """Number of guides with a batch, each with its caches."""
        return sum(one.batches for one in self._engines)

    @property
    def waiting(self) -> int:
        """Number of accepted rows that do not grow; most of them wait for a place."""
        return max(0, self._rows.used - self.busy)

    @property
    def waiting_rewards(self) -> int:
        return len(self._rewards)

    @property
    def waiting_calls(self) -> int:
        """Number of other jobs that have not ended."""
        return self._called.used

    @property
    def steps(self) -> int:
        return sum(one.steps for one in self._engines)

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self._engines)

    # --- requests, from other threads -----------------------------------------------------------

    def generate(self, responses: Sequence[Response]) -> None:
        """Queue the responses of a request.

        Raises:
            ApiError: 429, there is no room for all of them.
        """
        counts = [response.samples for response in responses]
        self._require(self._rows.take(sum(counts)))
        for response, count in zip(responses, counts, strict=True):
            self._begin(
                response.handle, functools.partial(self._respond, response), self._rows, count
            )

    def score(self, job: RewardJob) -> None:
        """Queue a request for rewards; raises `ApiError` 429 as `generate` does."""
        count = len(job.response_ids)
        self._require(self._reward_rows.take(count))
        self._begin(job.handle, functools.partial(self._reward, job), self._reward_rows, count)

    def call(self, handle: RequestHandle, steps: Steps, *, most: int) -> None:
        """Queue other work with the models. Jobs take turns, one piece between two decoding steps;
        raises `ApiError` 429 beyond ``most`` of them."""
        self._require(self._called.take(1, most))
        self._begin(handle, functools.partial(self._call, handle, steps), self._called, 1)

    def give_up(self, handle: RequestHandle) -> None:
        handle.over = True
        for program in self._programs.pop(handle, []):
            program.cancel()

    def _require(self, room: bool) -> None:
        if not room:
            raise full(self._seconds_to_wait())

    def _seconds_to_wait(self) -> int:
        """Estimated seconds until waiting rows are decoded, from recent ends of responses."""
        if len(self._ends) < 2:
            return 1
        rate = len(self._ends) / max(1e-3, time.monotonic() - self._ends[0])
        return max(1, min(_LONGEST_WAIT, math.ceil(self.waiting / rate)))

    def _begin(
        self, handle: RequestHandle, program: Program[None], quota: "_Quota", count: int
    ) -> None:
        running = self._loop.submit(self._guarded(handle, program))
        self._programs.setdefault(handle, []).append(running)
        running.add_done_callback(lambda _: quota.give(count))

    # --- programs, in the models' thread --------------------------------------------------------

    async def _guarded(self, handle: RequestHandle, program: Program[None]) -> None:
        if handle.over:
            return
        try:
            await program()
        except Exception as error:
            if not isinstance(error, RewardsteerError):
                self._note(error)
            self.outbox.put(handle, as_api_error(error))
            self.give_up(handle)

    async def _respond(self, response: Response) -> None:
        assert self._engine is not None, "there is a policy where responses are asked for"

        told = 0

        def watch(sample: Sample) -> None:
            def tell(text: str) -> None:
                nonlocal told
                new, told = slice(told, sample.length), sample.length
                self.outbox.put(response.handle, TextDelta(
                    response.index, text, sample.token_ids[new], sample.logprobs[new]
                ))

            if response.stream:
                sample.listen(tell)

        try:
            outcome, cost = await run(
                self._engine, self._judge, response.prompt, response.method, response.config,
                first=response.first, top=response.top, watch=watch,
            )
        except RewardsteerError as error:
            raise (upstream(error) if self._remote else error) from None
        self._ends.append(time.monotonic())
        self.outbox.put(response.handle, Finished(response.index, answer_of(outcome, cost)))

    async def _reward(self, job: RewardJob) -> None:
        job.done = asyncio.get_running_loop().create_future()
        self._rewards.put(job)
        if self._scoring is None or self._scoring.done():
            self._scoring = asyncio.create_task(self._score_all())
        try:
            self.outbox.put(job.handle, Result(await job.done))
        finally:
            self._rewards.drop(job.handle)

    async def _score_all(self) -> None:
        """Score the queued completions, a batch between two steps of decoding."""
        while taken := self._rewards.take(self._config.reward_tokens):
            await self._score(taken)
            self.scored += len(taken)
            await self._next_step()

    async def _score(self, taken: Sequence[tuple[RewardJob, int]]) -> None:
        """Score completions, and finish the requests that are complete."""
        work = functools.partial(
            score_together, self._scorer, taken, self._config.reward_tokens
        )
        # Decoding continues while a remote server computes.
        failed = await beside(work) if self._remote else work()
        for job, error in failed:
            self._note(error)
            if job.done is not None and not job.done.done():
                job.done.set_exception(upstream(error) if self._remote else error)
        for job in dict.fromkeys(job for job, _ in taken):
            job.finish()

    async def _call(self, handle: RequestHandle, steps: Steps) -> None:
        while True:
            # Jobs take turns, so that a long one does not delay all others.
            async with self._turn:
                try:
                    next(steps)
                except StopIteration as end:
                    self.outbox.put(handle, Result(end.value))
                    return
                await self._next_step()

    async def _next_step(self) -> None:
        await asyncio.sleep(0)
        for one in self._engines:
            await one.turn()

    def _note(self, error: Exception) -> None:
        self.broken = self.broken or is_fatal(error)
        log_failure(error)


class _Quota:
    """A counter of accepted work, with a maximum."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._lock = threading.Lock()

    def take(self, count: int, most: int | None = None) -> bool:
        """Add ``count`` if it fits; whether it does."""
        with self._lock:
            if self.used + count > (self.most if most is None else most):
                return False
            self.used += count
            return True

    def give(self, count: int) -> None:
        with self._lock:
            self.used -= count
