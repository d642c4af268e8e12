"""GenARM: log-probabilities of a reward language model, one call per token (arXiv 2410.08193)."""

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Rewarder
from rewardsteer.decoding.vocabulary import VocabularyGuide


class GenArm(VocabularyGuide):
    """score(v) = log p_LM(v) + w · log π_r(v | x, y) over the whole vocabulary, w = 1/β.

    π_r is the softmax of the vocabulary head's rewards, trained with the objective
    ``autoregressive``. Rewards that differ by a constant are the same π_r, so over the vocabulary
    that the reward model knows this draws from what FaRMA's rule draws from; what differs is what
    the head was trained to say. Several reward models multiply, each to the power of its weight.

    Raises:
        MismatchError: no reward model, one without a vocabulary head, or one trained on something
            else.
    """

    trained_on = ("autoregressive",)
    default_for = "autoregressive"

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__("genarm", scorer, config, normalise=True)
