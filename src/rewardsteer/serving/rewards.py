"""Scoring for requests: completions of many requests share a batch."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.records import Prompt
from rewardsteer.serving.handles import RequestHandle

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Reward:
    """The reward model's result for one completion.

    Attributes:
        reward: of the whole completion.
        token_rewards, token_similarities: at each token of the completion; None: not requested.
        step_rewards: of each step of the completion; None: not requested.
    """

    reward: float
    token_rewards: list[float] | None = None
    token_similarities: list[float] | None = None
    step_rewards: list[float] | None = None


@dataclass(frozen=True)
class TextRows:
    """Completions as texts, for reward models that take no token ids, and steps.

    Attributes:
        prompts: texts or conversations.
        completions: texts.
        steps: of each completion; None: not requested.
        closed: whether the completions have ended.
    """

    prompts: Sequence[Prompt]
    completions: Sequence[str]
    steps: Sequence[Sequence[str]] | None = None
    closed: bool = True


@dataclass(eq=False)
class RewardJob:
    """A request for rewards.

    Attributes:
        prompt_ids, response_ids: of each completion; with `texts`, used only to count tokens.
        texts: scored instead of token ids; None: token ids are scored.
        per_token: whether values of every token are requested.
        goal: a goal state, for similarities.
        done: resolved with all rewards.
    """

    handle: RequestHandle
    prompt_ids: Rows
    response_ids: Rows
    texts: TextRows | None = None
    per_token: bool = False
    goal: Any = None
    found: dict[int, Reward] = field(default_factory=dict)
    done: "asyncio.Future[list[Reward]] | None" = None

    @property
    def form(self) -> tuple[Any, ...]:
        """A key that is equal for completions which can share a call."""
        texts = self.texts
        if texts is None:
            return self.per_token, id(self.goal)
        return "texts", texts.closed, texts.steps is None

    def finish(self) -> None:
        """Resolve ``done`` once all rewards are there."""
        if len(self.found) == len(self.response_ids) and self.done and not self.done.done():
            self.done.set_result([self.found[row] for row in sorted(self.found)])


class RewardQueue:
    """The queue of completions, in order of arrival."""

    def __init__(self) -> None:
        self._rows: deque[tuple[RewardJob, int]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, job: RewardJob) -> None:
        self._rows.extend((job, row) for row in range(len(job.response_ids)))

    def drop(self, handle: RequestHandle) -> None:
        self._rows = deque(one for one in self._rows if one[0].handle is not handle)

    def take(self, tokens: int) -> list[tuple[RewardJob, int]]:
        """Remove the next completions, up to ``tokens`` tokens, at least one completion."""
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
    """Score completions; those with the same form share a call.

    Args:
        taken: completions.
        tokens: in one forward pass, padding included.

    Returns:
        requests that failed, with their errors; all other requests are unaffected.
    """
    alike: dict[tuple[Any, ...], list[tuple[RewardJob, int]]] = {}
    for job, row in taken:
        if not job.handle.over:
            alike.setdefault(job.form, []).append((job, row))
    failed = []
    for rows in alike.values():
        jobs = list(dict.fromkeys(job for job, _ in rows))
        try:
            if rows[0][0].texts is None:
                _score(scorer, rows, tokens)
            else:
                _score_texts(scorer, rows, tokens)
        except Exception as error:
            if len(jobs) == 1:
                failed.append((jobs[0], error))
                continue
            # Only the request with the error is to fail.
            for job in jobs:
                own = [one for one in rows if one[0] is job]
                failed += score_together(scorer, own, tokens)
    return failed


def _score_texts(scorer: Any, rows: Sequence[tuple[RewardJob, int]], tokens: int) -> None:
    several = [(job.texts, row) for job, row in rows if job.texts is not None]
    prompts = [texts.prompts[row] for texts, row in several]
    # As many rows per forward pass as the longest one allows.
    longest = max(len(job.prompt_ids[row]) + len(job.response_ids[row]) for job, row in rows)
    size = max(1, min(len(rows), tokens // max(1, longest)))
    values = scorer.score(
        prompts, [texts.completions[row] for texts, row in several], batch_size=size,
        closed=several[0][0].closed,
    )
    steps = [texts.steps[row] for texts, row in several if texts.steps is not None]
    found = scorer.step_scores(prompts, steps, batch_size=size) if steps else [None] * len(rows)
    for (job, row), value, own in zip(rows, values, found, strict=True):
        job.found[row] = Reward(
            float(value), step_rewards=None if own is None else [float(one) for one in own]
        )


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
