"""What a head is: the part of a reward model that turns hidden states into rewards."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from rewardsteer.tensors import PairBatch, TokenStates


class Head(ABC):
    """Rewards of prefixes from hidden states.

    Attributes:
        gives: the fields of `RewardOutput` that a model with this head can give.
        offset: the reward of the prefix that ends at column t is read off the state of column
            t - offset.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"states", "prefix_rewards"})
    offset: ClassVar[int] = 0

    @abstractmethod
    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[...]`` (float32 or wider) of the prefixes that end in ``tokens [...]``, read
        off the states ``[..., D]`` that lie `offset` columns before."""

    def prefix_rewards(
        self, states: TokenStates, batch: PairBatch, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Rewards ``[...]`` of the prefixes that end at rows and columns ``[...]`` of a batch; 0
        where no real token lies `offset` columns before."""
        source = (columns - self.offset).clamp(min=0)
        values = self.rewards_of(states.at(rows, source), batch.input_ids[rows, columns])
        if not self.offset:
            return values
        # Under left padding, a padding position lies before a row's first real token.
        known = (columns >= self.offset) & batch.attention_mask[rows, source].bool()
        return values.where(known, 0.0)

    def token_rewards(self, hidden: Tensor, input_ids: Tensor) -> Tensor:
        """Rewards ``[R, T]`` of the prefix that ends at every token of rows padded on the right; 0
        in the first `offset` columns. hidden ``[R, T, D]``, input_ids ``[R, T]``."""
        width = input_ids.shape[1] - self.offset
        rewards = self.rewards_of(hidden[:, :width], input_ids[:, self.offset :])
        return torch.nn.functional.pad(rewards, (self.offset, 0))

    def sequence_rewards(self, hidden: Tensor, input_ids: Tensor, last: Tensor) -> Tensor:
        """Rewards ``[R]`` of whole rows; last ``[R]`` is each row's last real column."""
        rows = torch.arange(len(last), device=hidden.device)
        source = (last - self.offset).clamp(min=0)
        return self.rewards_of(hidden[rows, source], input_ids[rows, last])

    def next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., V]`` of all one-token extensions of the prefixes ending at ``hidden``."""
        raise NotImplementedError

    def best_next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[N]`` of the best one-token extensions; hidden ``[N, D]``."""
        raise NotImplementedError

    def soft_next_token(self, hidden: Tensor, temperature: float) -> Tensor:
        """Soft maxima ``[N]`` over the one-token extensions; hidden ``[N, D]``."""
        raise NotImplementedError

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities ``[...]`` of ``tokens [...]`` after the prefixes ending at hidden
        ``[..., D]``, rewards read as logits."""
        raise NotImplementedError

    def response_log_probabilities(self, states: TokenStates, batch: PairBatch) -> Tensor:
        """`RewardOutput.log_probabilities` of a batch ``[R, T]``."""
        tokens = torch.zeros_like(batch.response_mask)
        # A response token with none before it (empty prompt) has no state to be predicted from.
        tokens[:, 1:] = batch.response_mask[:, 1:] & batch.attention_mask[:, :-1].bool()
        rows, columns = tokens.nonzero(as_tuple=True)
        values = self.log_probabilities(
            states.at(rows, columns - 1), batch.input_ids[rows, columns]
        )
        return values.new_zeros(tokens.shape).masked_scatter(tokens, values)
