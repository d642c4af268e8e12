"""Tensor nouns that cross folder borders.

Shape legend, used in every docstring:

    B  comparisons in a batch          R  rows (2B when chosen and rejected are both there)
    T  padded length in tokens         D  hidden size
    V  vocabulary size                 N  positions picked by a mask        K  candidates
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class PairBatch:
    """Tokenized rows of one training step.

    Attributes:
        input_ids: ``[R, T]``. Rows ``0..B-1`` are chosen, rows ``B..2B-1`` the rejected ones in the
            same order; when ``paired`` is False only the chosen rows are there and R = B.
        attention_mask: ``[R, T]``, 1 on real tokens; padding may be on either side.
        response_mask: ``[R, T]`` bool, True on response tokens (end-of-text included).
        prefix_mask: ``[R, T]`` bool, True on the last token of every response prefix that a prefix
            objective looks at; all False when no prefixes were drawn.
        margin: ``[B]``, in reward units.
        row_ids: the B comparisons' ids, for messages.
        paired: whether the rejected rows are there.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    prefix_mask: Tensor
    margin: Tensor
    row_ids: list[str] = field(default_factory=list)
    paired: bool = True

    @property
    def last_positions(self) -> Tensor:
        """``[R]`` index of each row's last real token, right under either padding side."""
        columns = torch.arange(self.attention_mask.shape[1], device=self.attention_mask.device)
        return (columns * self.attention_mask).argmax(dim=1)


@dataclass
class RewardOutput:
    """What a reward model says of a `PairBatch`.

    Attributes:
        sequence_rewards: ``[R]`` reward of each whole row, read at its last real token.
        token_rewards: ``[R, T]`` reward of the prefix that *ends* at that token. Meaningful on
            response tokens only.
        hidden_states: ``[R, T, D]`` last-layer states (after the final norm).
        best_next_token: maps a bool mask ``[R, T]`` to the rewards ``[N]`` of the best one-token
            extension of each of the N prefixes ending there; None for a scalar head.
    """

    sequence_rewards: Tensor
    token_rewards: Tensor
    hidden_states: Tensor
    best_next_token: Callable[[Tensor], Tensor] | None = None
