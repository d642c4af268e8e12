"""ARGS: candidates re-ranked by a full-sequence reward model."""

import logging

from rewardsteer.decoding.candidates import CandidateGuide
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Rewarder
from rewardsteer.models.compatibility import trained_with

logger = logging.getLogger(__name__)


class Args(CandidateGuide):
    """score(v) = log p_LM(v) + w · r(x, y∘v) over the policy's top_k, r trained on whole responses.

    Greedy, or stochastic by drawing from the softmax of the scores.

    Raises:
        MismatchError: no reward model, or one without a scalar head.
        ConfigError: top_k is 0.
    """

    default_for = ""

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__("args", scorer, config)
        if trained_with(scorer, "partial"):
            logger.warning(
                "The reward model was trained on partial responses: with it, args is pargs."
            )
