"""What a decoding method is, to an engine: a guide of tokens, or a judge of steps or responses.

A token guide reweighs the policy's next-token logits at every step. A step guide scores responses
in the making, of which a search keeps the best. A response guide sees n whole responses to a prompt
and chooses one. None knows the engine that runs it; a token guide opens a session per batch, which
holds the caches and counts what they cost.

Shapes: B rows, T columns of the left-padded prefixes, V the policy's logits a row.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rewardsteer.errors import NonFiniteError, RewardsteerError


class Response(Protocol):
    """The part of a `rewardsteer.decoding.loop.Row` that a reviewer sees and may change."""

    name: str
    sample: int
    prompt_ids: Sequence[int]
    draws: random.Random
    token_ids: list[int]
    finish_reason: Literal["stop", "length"]
    watch: Callable[[float], bool] | None
    dropped: bool
    waits: bool
    reward: float | None


def stop_of(response: Any) -> Sequence[int]:
    """The token that ended a row or a generation; none where it was cut off."""
    stopped = response.finish_reason == "stop"
    last: Sequence[int] = response.token_ids[-1:] if stopped else ()
    return last


@dataclass
class Prefix:
    """What was generated so far.

    Attributes:
        ids: ``[B, T]`` prompts with their responses so far, padded on the left.
        mask: ``[B, T]``, 1 on real tokens.
        steps: per row, tokens generated so far; rows of different ages share a batch. 0 marks a row
            that is new to its place.
        names: per row, the request's id, for messages.
        rows: the responses themselves, for guides that review them; not known to every engine.
        changed: set by a guide that changed what some row had got.
        failed: per row that cannot go on, why; see `fail`.
    """

    ids: Tensor
    mask: Tensor
    steps: Sequence[int]
    names: Sequence[str]
    rows: Sequence[Any] = ()
    changed: bool = False
    failed: dict[int, RewardsteerError] = field(default_factory=dict)

    def fail(self, row: int, error: RewardsteerError) -> None:
        """End one row of the batch with an error of its own. The other rows go on, so whatever a
        guide returns for this row must leave theirs alone; what it returns for the row itself is
        not used."""
        self.failed.setdefault(row, error)


class Reads(NamedTuple):
    """What one row cost the reward model; see `rewardsteer.records.Cost`."""

    calls: int = 0
    forwards: int = 0
    tokens: int = 0


class RewardCache(Protocol):
    """The part of a prefix reader that a guide sees."""

    forwards: list[int]
    tokens: list[int]

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; -1 makes place for a new one, first seen at step 0. What
        is kept of each row means nothing there until then."""


class Rewarder(Protocol):
    """The part of a `rewardsteer.models.scorer.Scorer` that decoding uses."""

    @property
    def head_kind(self) -> str:
        """``scalar`` or ``vocabulary``."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids that have a meaning to the reward model."""

    def open(self) -> Any:
        """A fresh `RewardCache`."""

    def next_token(self, prefix_ids: Tensor, attention_mask: Tensor, cache: Any = None) -> Tensor:
        """Rewards ``[B, Vr]`` of all one-token extensions."""

    def candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor, cache: Any = None
    ) -> Tensor:
        """Rewards ``[B, K]`` of some one-token extensions."""

    def score_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int = 16,
    ) -> Any:
        """Rewards ``[N]`` of whole responses."""

    def token_scores_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None, goal: Any = None,
    ) -> Any:
        """Per row, rewards and similarities to the goal at every response token."""

    def close_response(
        self, response_ids: Sequence[int], stop_ids: Collection[int] = ()
    ) -> list[int]:
        """The response as the reward model knows it from training: without the policy's token that
        ended it, closed or open."""

    def prefixes(
        self, rows: Sequence[int], prefix_ids: Tensor, attention_mask: Tensor, cache: Any, *,
        places: int,
    ) -> Tensor:
        """Rewards ``[R]`` of the prefixes of some rows of ``places``."""

    def similarities(
        self, rows: Sequence[int], prefix_ids: Tensor, attention_mask: Tensor, goal: Any, cache: Any
    ) -> Tensor:
        """Cosines ``[R]`` of the last tokens' states of some rows of ``[B, T]`` to a goal."""


class GuideSession(Protocol):
    """A token guide at work on one batch."""

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` (float32) from the policy's logits ``[B, V]``."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; -1 makes place for a new one, first seen at step 0. What
        is kept of each row means nothing there until then."""

    def reads(self, row: int) -> Reads:
        """What was read at this place so far; a row's cost is what was added since it came."""


@runtime_checkable
class Foreseeing(Protocol):
    """A session whose reward model is asked about the prefixes alone, whatever the policy says of
    them. An engine may have it read them at the same time as the policy."""

    def read(self, prefix_ids: Tensor, attention_mask: Tensor) -> None:
        """Read prefixes ``[B, T]``, padded on the left; the next `scores` is about them."""


@runtime_checkable
class Reviewer(Protocol):
    """A session that looks at responses as they grow: ends them, drops them or takes tokens back.

    In `scores` too it may take tokens back from rows, which then must wait (see `Response`).
    """

    def review(self, prefix: Prefix, ended: list[bool]) -> list[bool]:
        """Called after every token; which rows end now.

        Args:
            prefix: all rows with their new tokens.
            ended: which of them end because of their token or their length.
        """


class TokenGuide(Protocol):
    """A method that reweighs next tokens, or (``segment``) takes some of them back; the latter's
    sessions are `Reviewer`s too."""

    name: str
    level: Literal["token", "segment"]
    scorer: Any

    def open(self) -> GuideSession:
        """Begin a batch."""


class Choice(NamedTuple):
    """The response that was taken among the samples of a prompt, and what choosing cost. With an
    error nothing could be chosen for this prompt, and the other fields mean nothing."""

    sample: int
    reward: float
    reads: Reads
    error: RewardsteerError | None = None


class ResponseGuide(Protocol):
    """A method that chooses among whole responses.

    ``samples`` is how many to draw for each prompt.
    """

    name: str
    level: Literal["response"]
    scorer: Any
    samples: int

    def choose(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]],
        names: Sequence[str], stop_ids: Collection[int] = (),
    ) -> list[Choice]:
        """One choice for each prompt, among its responses (token ids)."""


class Judged(NamedTuple):
    """What a step guide says of a candidate, and what it cost. With an error the candidate could
    not be judged, and its prompt fails."""

    score: float
    reads: Reads
    error: RewardsteerError | None = None


class StepGuide(Protocol):
    """A method that ranks responses in the making, step by step.

    The search keeps ``beam`` hypotheses of each prompt and draws ``branches`` steps from each, in
    at most ``max_steps`` rounds. A step ends after a token whose text contains ``separator``, or
    after ``step_tokens`` tokens.
    """

    name: str
    level: Literal["step"]
    scorer: Any
    beam: int
    branches: int
    separator: str
    step_tokens: int
    max_steps: int

    def judge(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]],
        log_probabilities: Sequence[float], names: Sequence[str],
    ) -> list[Judged]:
        """One judgement for each candidate, higher is better.

        Args:
            prompts: of each candidate (token ids).
            responses: all steps of each candidate, at least one token.
            log_probabilities: of each response under the policy, summed over its tokens.
            names: the requests' ids, for messages.
        """


class Plan(Protocol):
    """What a group guide does with the samples of one prompt.

    ``together`` says whether samples must begin at the same time, to grow in step.
    """

    together: bool

    def start(self) -> list[int]:
        """Numbers of the samples to begin now, or of dropped ones that go on; asked whenever none
        is at work. None: there is an answer."""

    def watch(self, sample: int) -> Callable[[float], bool] | None:
        """What watches a sample that begins or goes on, see `rewardsteer.decoding.loop.Row`."""

    def finish(self, sample: int, row: Any) -> None:
        """A sample has ended."""

    def choose(self) -> int | None:
        """The sample that answers; None while that is open."""


class GroupGuide(Protocol):
    """A method that draws several responses to a prompt and ends some of them early.

    ``samples`` is the largest number of responses to a prompt.
    """

    name: str
    level: Literal["group"]
    scorer: Any
    samples: int

    def open(self) -> GuideSession:
        """Begin a batch; the session is a `Reviewer`."""

    def plan(self, text_of: Callable[[Any], str]) -> Plan:
        """Begin with a prompt; ``text_of`` turns a row into text."""


# Scores up to here can be divided by the least temperature and stay within float32.
_LARGEST = 1e30

Method = TokenGuide | StepGuide | ResponseGuide | GroupGuide


def finite(rewards: Tensor, prefix: Prefix) -> Tensor:
    """Rewards ``[B, …]`` with 0 in the rows that have NaN or infinite ones; those rows fail."""
    # A finite sum has finite terms alone, and costs a fiftieth of looking at each.
    if bool(rewards.sum().isfinite()):
        return rewards
    fine = torch.isfinite(rewards).flatten(1).all(dim=1)
    for row in (~fine).nonzero().squeeze(1).tolist():
        prefix.fail(row, not_a_number("The reward model gave NaN or infinite rewards", prefix, row))
    return torch.where(fine.view(-1, *[1] * (rewards.dim() - 1)), rewards, 0.0)


def not_a_number(what: str, prefix: Prefix, row: int) -> NonFiniteError:
    """The error of a row for which a model gave no numbers, naming step and row."""
    return NonFiniteError(
        f"{what} at step {prefix.steps[row] + 1} of row {prefix.names[row]!r}; the checkpoint may "
        "be damaged, or its values overflow in this dtype: try float32."
    )


def check_numbers(logits: Tensor, scores: Tensor, prefix: Prefix) -> None:
    """Fail the rows of which no token can be picked: logits or scores ``[B, V]`` with NaN or +inf,
    or without any finite one."""
    # What a row cannot have shows in its maximum.
    best = torch.stack([logits.amax(dim=1).to(scores), scores.amax(dim=1)])
    fine = best.abs() < _LARGEST
    if bool(fine.all()):
        return
    policy, guided = fine.tolist()
    for row, (one, both) in enumerate(zip(policy, guided, strict=True)):
        if not one:
            prefix.fail(row, not_a_number("The policy gave NaN or infinite logits", prefix, row))
        elif not both:
            prefix.fail(row, NonFiniteError(
                f"The weighted rewards leave float32's range at step {prefix.steps[row] + 1} of "
                f"row {prefix.names[row]!r}; lower the weight."
            ))
