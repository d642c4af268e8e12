"""Records of ``rewardsteer inspect``: one completion token by token. No torch here."""

from typing import Any, Literal

from pydantic import Field

from rewardsteer.records import Record


class Alternative(Record):
    """A candidate for the next token.

    Attributes:
        text: the text that it would add.
        value: its probability, or its reward in the reward model's column.
        rank: its rank by value in its column, from 1.
    """

    token_id: int
    text: str
    value: float
    rank: int


class InspectedToken(Record):
    """One token of a completion, with the tokens preferred before it in three columns.

    Attributes:
        token_id: its id.
        reward: of the prefix that ends with it.
        similarity: of its hidden state to the goal state; None without a goal.
        kl: KL divergence in nats of the guided distribution from the policy's on the tokens that
            the method may choose, at the temperature of decoding; None where a method guides no
            tokens.
        moved: total variation of the same two distributions (half the sum of absolute differences),
            the share of probability that guidance moved, in [0, 1].
        policy: the policy's likeliest tokens.
        reward_model: tokens with the highest rewards: of the whole vocabulary for a vocabulary
            head, of the policy's likeliest tokens for a scalar one.
        guided: the guided method's likeliest tokens; empty where a method guides no tokens.

    A token that is not among the first of a column is added at its end, with its rank.
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
        signal: the values that the filter is applied to.
        threshold: it stops at the first token, after ``start`` ones, whose value is lower.
        start: number of first tokens that are never compared.
        index: index of the token at which it stops, from 0; None: it never stops.
    """

    signal: Literal["reward", "similarity"]
    threshold: float
    start: int
    index: int | None = None


class Inspection(Record):
    """A completion inspected token by token.

    Attributes:
        id: unique within its file.
        label: name shown; the id where it is "".
        prompt: the text that the model got.
        completion: the text.
        method: the decoding method that guided, ``none`` for the policy alone.
        is_correct: the label; None where there is none.
        tokens: of the completion, in order, end-of-text included.
        stop: where a filter would have stopped; None without a filter.
        settings: settings, names and fingerprints of the inspection.
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
