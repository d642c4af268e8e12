"""FaRMA: next-token rewards of a vocabulary head, one call per token (arXiv 2502.04517)."""

import logging
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.models.compatibility import trained_with

logger = logging.getLogger(__name__)


class Farma(LogitsGuide):
    """score(v) = LM logit(v) + w · Q(x, y)[v] over the whole vocabulary."""

    default_for = ""

    def __init__(self, scorer: Any, config: DecodingConfig) -> None:
        super().__init__(scorer, config)
        if trained_with(scorer, "autoregressive"):
            logger.warning(
                "The reward model was trained on log-probabilities: with it, farma is genarm."
            )
