"""Completions to be scored: those of many requests are read together."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.errors import NonFiniteError
from rewardsteer.serving.tickets import Failed, Outbox, Ticket, Value


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
        ticket: the request's.
        prompt_ids, response_ids: of each completion.
        per_token: whether values of every token are wanted.
        goal: a goal state, for similarities.
    """

    ticket: Ticket
    prompt_ids: Sequence[Sequence[int]]
    response_ids: Sequence[Sequence[int]]
    per_token: bool = False
    goal: Any = None
    found: dict[int, Reward] = field(default_factory=dict)


class RewardQueue:
    """Completions that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._rows: deque[tuple[RewardJob, int]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, job: RewardJob) -> None:
        """All completions of a request."""
        self._rows.extend((job, row) for row in range(len(job.response_ids)))

    def drop(self, ticket: Ticket) -> None:
        """Forget a request."""
        self._rows = deque(one for one in self._rows if one[0].ticket is not ticket)

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
    scorer: Any, taken: Sequence[tuple[RewardJob, int]], outbox: Outbox
) -> None:
    """Score completions, those that want the same things in one reading; tell the requests of which
    these were the last."""
    alike: dict[tuple[bool, int], list[tuple[RewardJob, int]]] = {}
    for job, row in taken:
        if not job.ticket.over:
            alike.setdefault((job.per_token, id(job.goal)), []).append((job, row))
    for rows in alike.values():
        try:
            _score(scorer, rows)
        except NonFiniteError as error:
            if len({id(job) for job, _ in rows}) == 1:
                _fail(rows[0][0], error, outbox)
                continue
            # One request's trouble is not that of the others.
            for job in dict.fromkeys(job for job, _ in rows):
                score_together(scorer, [one for one in rows if one[0] is job], outbox)
            continue
        for job in dict.fromkeys(job for job, _ in rows):
            if len(job.found) == len(job.response_ids):
                outbox.put(job.ticket, Value([job.found[row] for row in sorted(job.found)]))


def _score(scorer: Any, rows: Sequence[tuple[RewardJob, int]]) -> None:
    prompts = [job.prompt_ids[row] for job, row in rows]
    responses = [job.response_ids[row] for job, row in rows]
    first, whole = rows[0][0], {"batch_size": len(rows)}
    if not first.per_token and first.goal is None:
        values = scorer.score_ids(prompts, responses, **whole)
        for (job, row), value in zip(rows, values, strict=True):
            job.found[row] = Reward(float(value))
        return
    read = scorer.token_scores_ids(prompts, responses, **whole, goal=first.goal)
    for (job, row), one in zip(rows, read, strict=True):
        similar = None if one.similarities is None else one.similarities.tolist()
        job.found[row] = Reward(float(one.rewards[-1]), one.rewards.tolist(), similar)


def _fail(job: RewardJob, error: Exception, outbox: Outbox) -> None:
    outbox.put(job.ticket, Failed(error))
    job.ticket.over = True
