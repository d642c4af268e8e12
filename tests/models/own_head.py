"""A head from outside the package: the absolute value of a product, after a layer of its own."""

import torch
from torch import nn

from rewardsteer.models.heads.base import Head


class Bent(Head):
    """r = |v · tanh(W h)|, where v and W are its own."""

    description = "a bent head"

    @classmethod
    def build(cls, config, size):
        return nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1))

    def rewards_of(self, hidden, tokens):
        return self.projection(hidden).squeeze(-1).abs().to(torch.float32)
