"""GenARM: log-probabilities of a reward language model, one call per token (arXiv 2410.08193)."""

from torch import Tensor

from rewardsteer.decoding.guides.base import LogitsGuide


class GenArm(LogitsGuide):
    """score(v) = log p_LM(v) + w · log π_r(v | x, y) over the whole vocabulary, w = 1/β.

    π_r is the softmax of the vocabulary head's rewards, trained with the objective
    ``autoregressive``. A constant added to the rewards leaves π_r unchanged, so over the reward
    model's vocabulary this rule has the same distribution as FaRMA's; only the head's training
    differs. Several reward models multiply, each to the power of its weight.
    """

    trained_on = ("autoregressive",)
    default_for = "autoregressive"
    reads_log_probabilities = True

    def transform(self, rewards: Tensor) -> Tensor:
        return rewards.log_softmax(dim=-1)
