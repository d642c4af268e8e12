"""The policy alone."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Prefix, Reads, Rewarder


class Plain:
    """Token guide that changes nothing."""

    name = "none"
    level: Literal["token"] = "token"
    needs = "none"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    scorer = None

    def __init__(self, scorer: Rewarder | None, config: DecodingConfig) -> None:
        pass

    def open(self) -> "PlainSession":
        """Begin a batch."""
        return PlainSession()


class PlainSession:
    """Nothing to hold."""

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """The policy's logits ``[B, V]``."""
        return logits.float()

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to do."""

    def reads(self, row: int) -> Reads:
        """Nothing was read."""
        return Reads()
