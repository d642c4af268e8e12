"""GenARM: log-probabilities of a reward language model, one call per token (arXiv 2410.08193)."""

from torch import Tensor

from rewardsteer.decoding.guides.base import LogitsGuide


class GenArm(LogitsGuide):
    """score(v) = log p_LM(v) + w · log π_r(v | x, y) over the whole vocabulary, w = 1/β.

    π_r is the softmax of the vocabulary head's rewards, trained with the objective
    ``autoregressive``. Rewards that differ by a constant are the same π_r, so over the vocabulary
    that the reward model knows this draws from what FaRMA's rule draws from; what differs is what
    the head was trained to say. Several reward models multiply, each to the power of its weight.
    """

    trained_on = ("autoregressive",)
    default_for = "autoregressive"
    reads_log_probabilities = True

    def transform(self, rewards: Tensor) -> Tensor:
        """Log-probabilities."""
        return rewards.log_softmax(dim=-1)
