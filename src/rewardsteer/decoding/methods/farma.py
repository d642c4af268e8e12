"""FaRMA: next-token rewards of a vocabulary head, one call per token (arXiv 2502.04517)."""

import logging

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Rewarder
from rewardsteer.decoding.vocabulary import VocabularyGuide
from rewardsteer.models.compatibility import trained_with

logger = logging.getLogger(__name__)


class Farma(VocabularyGuide):
    """score(v) = LM logit(v) + w · Q(x, y)[v] over the whole vocabulary.

    Raises:
        MismatchError: no reward model, or one without a vocabulary head.
    """

    default_for = ""

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__("farma", scorer, config)
        if trained_with(scorer, "autoregressive"):
            logger.warning(
                "The reward model was trained on log-probabilities: with it, farma is genarm."
            )
