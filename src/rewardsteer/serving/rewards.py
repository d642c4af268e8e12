"""Completions to be scored: those of many requests are read together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.serving.handles import RequestHandle


@dataclass(frozen=True)
class Reward:
    """What the reward model says of one completion.

    Attributes:
        reward: of the whole.
        token_rewards, token_similarities: at each token of the completion; None: not asked for.
    """

    reward: float
    token_rewards: list[float] | None = None
    token_similarities: list[float] | None = None


@dataclass(eq=False)
class RewardJob:
    """A request for rewards.

    Attributes:
        handle: of the request.
        prompt_ids, response_ids: of each completion.
        per_token: whether values of every token are wanted.
        goal: a goal state, for similarities.
        done: resolved with all rewards.
    """

    handle: RequestHandle
    prompt_ids: Sequence[Sequence[int]]
    response_ids: Sequence[Sequence[int]]
    per_token: bool = False
    goal: Any = None
    found: dict[int, Reward] = field(default_factory=dict)
    done: "asyncio.Future[list[Reward]] | None" = None


class RewardQueue:
    """Completions that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._rows: deque[tuple[RewardJob, int]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, job: RewardJob) -> None:
        """All completions of a request."""
        self._rows.extend((job, row) for row in range(len(job.response_ids)))

    def drop(self, handle: RequestHandle) -> None:
        """Forget a request."""
        self._rows = deque(one for one in self._rows if one[0].handle is not handle)

    def take(self, tokens: int) -> list[tuple[RewardJob, int]]:
        """The next completions, so many tokens of them, at least one."""
        taken: list[tuple[RewardJob, int]] = []
        while self._rows:
            job, row = self._rows[0]
            tokens -= len(job.prompt_ids[row]) + len(job.response_ids[row])
            if taken and tokens < 0:
                break
            taken.append(self._rows.popleft())
        return taken


def score_together(
    scorer: Any, taken: Sequence[tuple[RewardJob, int]], tokens: int
) -> list[tuple[RewardJob, Exception]]:
    """Score completions, those that want the same things in one call; tell the requests of which
    these were the last.

    Args:
        scorer: the reward model.
        taken: completions.
        tokens: read in one forward pass, padding included.

    Returns:
        requests that failed, and why; the others are not touched by it.
    """
    alike: dict[tuple[bool, int], list[tuple[RewardJob, int]]] = {}
    for job, row in taken:
        if not job.handle.over:
            alike.setdefault((job.per_token, id(job.goal)), []).append((job, row))
    failed = []
    for rows in alike.values():
        jobs = list(dict.fromkeys(job for job, _ in rows))
        try:
            _score(scorer, rows, tokens)
        except Exception as error:
            if len(jobs) == 1:
                failed.append((jobs[0], error))
                continue
            # One request's trouble is not that of the others.
            for job in jobs:
                own = [one for one in rows if one[0] is job]
                failed += score_together(scorer, own, tokens)
            continue
        for job in jobs:
            if len(job.found) == len(job.response_ids) and job.done and not job.done.done():
                job.done.set_result([job.found[row] for row in sorted(job.found)])
    return failed


def _score(scorer: Any, rows: Sequence[tuple[RewardJob, int]], tokens: int) -> None:
    prompts = [job.prompt_ids[row] for job, row in rows]
    responses = [job.response_ids[row] for job, row in rows]
    first = rows[0][0]
    # Rows of one length fill a forward pass; a long one beside short ones would be mostly padding.
    limits = {
        "batch_size": None, "batch_tokens": tokens, "numbers": [row + 1 for _, row in rows],
    }
    if not first.per_token and first.goal is None:
        values = scorer.score_ids(prompts, responses, **limits)
        for (job, row), value in zip(rows, values, strict=True):
            job.found[row] = Reward(float(value))
        return
    read = scorer.token_scores_ids(prompts, responses, **limits, goal=first.goal)
    for (job, row), one in zip(rows, read, strict=True):
        similar = None if one.similarities is None else one.similarities.tolist()
        job.found[row] = Reward(float(one.rewards[-1]), one.rewards.tolist(), similar)
