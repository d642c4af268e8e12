"""One completion token by token, as ``rewardsteer inspect`` writes it. No torch here."""

from typing import Any, Literal

from pydantic import Field

from rewardsteer.records import Record


class Alternative(Record):
    """A token that might have come next.

    Attributes:
        token_id: its id.
        text: what it would have added to the text.
        value: its probability, or its reward in the reward model's column.
        rank: its place in its column's order, from 1.
    """

    token_id: int
    text: str
    value: float
    rank: int


class InspectedToken(Record):
    """One token of a completion and what three columns said before it was taken.

    Attributes:
        token_id: its id.
        text: what it adds to the text.
        reward: of the prefix that ends with it.
        similarity: of its hidden state to the goal state; None without a goal.
        kl: KL divergence in nats of the guided distribution from the policy's on the tokens that
            the method may choose, at the temperature of decoding; None where a method guides no
            tokens.
        moved: half the sum of the absolute differences of the same two, the share of the
            probability that guidance moved, in [0, 1].
        policy: the policy's likeliest tokens.
        reward_model: tokens of the highest rewards: of the whole vocabulary for a vocabulary head,
            of the policy's likeliest for a scalar one.
        guided: the likeliest of both together; empty where a method guides no tokens.

    The token itself stands last in each column, with its rank, where it is not among the first.
    """

    token_id: int
    text: str
    reward: float | None = None
    similarity: float | None = None
    kl: float | None = None
    moved: float | None = None
    policy: list[Alternative] = Field(default_factory=list)
    reward_model: list[Alternative] = Field(default_factory=list)
    guided: list[Alternative] = Field(default_factory=list)


class FilterStop(Record):
    """Where a filter would have stopped a completion.

    Attributes:
        signal: the values that it is applied to.
        threshold: it stops at the first token whose value is lower, after the first ``start`` ones.
        start: tokens that are never looked at.
        index: of the token that crossed, from 0; None: it never stops.
    """

    signal: Literal["reward", "similarity"]
    threshold: float
    start: int
    index: int | None = None


class Inspection(Record):
    """A completion looked at token by token.

    Attributes:
        id: unique within its file.
        label: what to call it; the id where it is "".
        prompt: as it was read.
        completion: the text.
        method: the decoding method that guided, ``none`` for the policy alone.
        is_correct: the label; None where there is none.
        tokens: of the completion, in order, end-of-text included.
        stop: where a filter would have stopped; None without one.
        settings: how it was made: settings, names, fingerprints.
    """

    id: str
    label: str = ""
    prompt: str
    completion: str
    method: str = "none"
    is_correct: bool | None = None
    tokens: list[InspectedToken] = Field(default_factory=list)
    stop: FilterStop | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
