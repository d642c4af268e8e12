"""One reward per next token: Q(h)[v] = r(x, y∘v) (FaRMA, arXiv 2502.04517)."""

import torch
from torch import Tensor, nn

from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax


class VocabularyHead:
    """Reads rewards off the output row of a causal language model.

    The reward of a prefix that ends in token y_t is the entry of y_t in the row before it:
    r(x, y₁..t) = Q(h_{t-1})[y_t].

    Args:
        projection: the output layer, ``[D] → [V]``. It belongs to the model that holds its
            parameters; the head only reads it.
    """

    def __init__(self, projection: nn.Linear) -> None:
        self.projection = projection

    def next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., V]`` of all one-token extensions of the prefixes ending at ``hidden``."""
        rewards: Tensor = self.projection(hidden)
        return rewards if rewards.dtype == torch.float64 else rewards.float()

    def best_next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[...]`` of the best one-token extension, the maximum of `next_token`, without
        ever holding all of them; differentiable. hidden ``[N, D]``."""
        return self._gather(
            hidden, vocabulary_argmax(hidden, self.projection.weight, self.projection.bias)
        )

    def _gather(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Q(hidden)[tokens] by one dot product a position, never the product with all of V."""
        return gather_products(hidden, self.projection.weight, tokens, self.projection.bias)

    def token_rewards(self, hidden: Tensor, input_ids: Tensor) -> Tensor:
        """Rewards ``[R, T]`` of the prefix ending at every token; column 0 has no state before it
        and is 0. hidden ``[R, T, D]``, input_ids ``[R, T]``."""
        rewards = self._gather(hidden[:, :-1], input_ids[:, 1:])
        return torch.cat([rewards.new_zeros(len(rewards), 1), rewards], dim=1)

    def sequence_rewards(self, hidden: Tensor, input_ids: Tensor, last: Tensor) -> Tensor:
        """Rewards ``[R]`` of whole rows; last ``[R]`` indexes each row's last real token."""
        rows = torch.arange(len(last), device=hidden.device)
        before = (last - 1).clamp(min=0)
        return self._gather(hidden[rows, before], input_ids[rows, last])
