"""ARGS: candidates re-ranked by a full-sequence reward model."""

import logging
from typing import Any, Literal

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.models.compatibility import trained_with

logger = logging.getLogger(__name__)


class Args(LogitsGuide):
    """score(v) = log p_LM(v) + w · r(x, y∘v) over the policy's top_k, r trained on whole responses.

    Greedy, or stochastic by drawing from the softmax of the scores. Policy logits stand in for
    log-probabilities: they differ by a constant per row, which neither the best token nor a softmax
    sees, and so weight 0 gives the policy's own choice bit by bit.
    """

    asks: Literal["candidates"] = "candidates"
    needs = "scalar"
    default_for = ""

    def __init__(self, scorer: Any, config: DecodingConfig) -> None:
        super().__init__(scorer, config)
        if trained_with(scorer, "partial"):
            logger.warning(
                "The reward model was trained on partial responses: with it, args is pargs."
            )
