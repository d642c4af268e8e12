"""Vocabulary heads of few parameters beside the output layer of the language model.

``low_rank``: Q(h) = B·A·h with A ``[r, D]`` random and B ``[V, r]`` zero, so that rewards begin as
zeros and guidance begins as the policy. ``embedding``: Q(h)[v] = w₀·h + (W·h)·e_v with the frozen
output embeddings e of the language model and W ``[D, D]`` zero (arXiv 2407.04615), or W = C·A of
rank r. No parameter belongs to one token, so what it learns about a token applies to similar ones.

Both are linear in h, so each equals one full layer (`folded`), for engines that lack these heads.
With ``init=lm_head`` that layer begins as the best approximation of rank r of the language model's
output layer.
"""

import math
from collections.abc import Mapping, Set
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import WideLinear
from rewardsteer.models.heads.projection import RewardProjection
from rewardsteer.models.sharding import gathered


class LowRank(nn.Module):
    """Parameters of the form ``low_rank``.

    Args:
        size: D, numbers in a state.
        vocabulary: V.
        rank: r.
    """

    def __init__(self, size: int, vocabulary: int, rank: int) -> None:
        super().__init__()
        self.down = _random(size, rank)
        self.up = RewardProjection(rank, vocabulary, bias=False)
        nn.init.zeros_(self.up.weight)

    @torch.no_grad()
    def approximate(self, weight: Tensor) -> None:
        """Begin as the truncated singular value decomposition of a layer's weight ``[V, D]``."""
        found = _directions(weight, self.down.out_features)
        self.down.weight[: len(found)] = found
        self.up.weight[:, : len(found)] = weight.float() @ found.T

    @classmethod
    def sized(cls, state: Mapping[str, Tensor]) -> "LowRank":
        """A module for saved parameters; raises `ValueError` for other ones."""
        _expect(state, {"down.weight", "up.weight"})
        rank, size = state["down.weight"].shape
        return cls(size, len(state["up.weight"]), rank)

    def bound(self, layer: Any) -> nn.Module:
        """The module that a head calls, given the language model's output layer."""
        self.up.generated = getattr(layer, "generated", None)
        return _Stacked(self.down, self.up)

    @torch.no_grad()
    def folded(self, layer: Any) -> Tensor:
        """The weight ``[V, D]`` of the one layer that it equals, float32; V of ``layer``."""
        weight = self.up.weight.float() @ self.down.weight.float()
        whole = weight.new_zeros(layer.out_features, weight.shape[1])
        whole[: len(weight)] = weight
        return whole


class Embedding(nn.Module):
    """Parameters of the form ``embedding``.

    Args:
        size: D.
        rank: r; 0: W is whole.
    """

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.baseline = _zero(size, 1)
        self.down = _random(size, rank) if rank else None
        self.turn = _zero(rank or size, size)

    @torch.no_grad()
    def approximate(self, weight: Tensor) -> None:
        """As `LowRank.approximate`, of the output embeddings ``[V, D]``; exact without a rank."""
        if self.down is None:
            nn.init.eye_(self.turn.weight)
            return
        found = _directions(weight, self.down.out_features)
        self.down.weight[: len(found)] = found
        self.turn.weight[:, : len(found)] = found.T

    @classmethod
    def sized(cls, state: Mapping[str, Tensor]) -> "Embedding":
        """A module for saved parameters; raises `ValueError` for other ones."""
        _expect(state, {"baseline.weight", "turn.weight"}, {"down.weight"})
        rank = len(state["down.weight"]) if "down.weight" in state else 0
        return cls(state["baseline.weight"].shape[1], rank)

    def bound(self, layer: Any) -> nn.Module:
        """The module that a head calls, given the language model's output layer, which is not
        changed."""
        frozen = RewardProjection(layer.in_features, layer.out_features, bias=False, device="meta")
        frozen.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        frozen.generated = getattr(layer, "generated", None)
        steps = [self.turn] if self.down is None else [self.down, self.turn]
        return _Stacked(nn.Sequential(*steps), frozen, self.baseline)

    @torch.no_grad()
    def folded(self, layer: Any) -> Tensor:
        """The weight ``[V, D]`` of the one layer that it equals, float32."""
        turn = self.turn.weight.float()
        if self.down is not None:
            turn = turn @ self.down.weight.float()
        return layer.weight.float() @ turn + self.baseline.weight.float()


class _Stacked(nn.Module):
    """A `RewardProjection` over transformed states, plus a number per state."""

    def __init__(
        self, turn: nn.Module, projection: RewardProjection, baseline: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.turn, self.projection, self.baseline = turn, projection, baseline

    @property
    def out_features(self) -> int:
        """V."""
        return self.projection.out_features

    @property
    def generated(self) -> int | None:
        return self.projection.generated

    def forward(self, hidden: Tensor, read: str = "logits", **options: Any) -> Tensor:
        """See `RewardProjection.forward`. The baseline adds the same number to all results of a
        state."""
        values: Tensor = self.projection(self.turn(hidden), read, **options)
        if self.baseline is None:
            return values
        constant: Tensor = self.baseline(hidden)
        several = read in ("logits", "rewards", "candidates")
        return values + (constant if several else constant.squeeze(-1))


def build_own(config: HeadConfig, layer: Any) -> nn.Module:
    """A new head beside an output layer."""
    own: Any = (
        LowRank(layer.in_features, layer.out_features, config.rank)
        if config.layers == "low_rank" else Embedding(layer.in_features, config.rank)
    )
    if config.init == "lm_head":
        with gathered(layer.parameters()):
            own.approximate(layer.weight)
    return cast(nn.Module, own)


def sized_own(config: HeadConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """A module for saved parameters of a head; raises `ValueError` for other ones."""
    own: nn.Module = (LowRank if config.layers == "low_rank" else Embedding).sized(state)
    return own


def _directions(weight: Tensor, rank: int) -> Tensor:
    """The at most ``rank`` right singular vectors ``[≤ r, D]`` of a matrix ``[V, D]`` that have the
    largest singular values."""
    # V is far above D, so the eigenvectors of [D, D] are found sooner than the decomposition.
    wide = weight.float()
    return torch.linalg.eigh(wide.T @ wide).eigenvectors[:, -rank:].T


def _random(size: int, rank: int) -> WideLinear:
    layer = WideLinear(size, rank, bias=False)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
    return layer


def _zero(size: int, out: int) -> WideLinear:
    layer = WideLinear(size, out, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def _expect(state: Mapping[str, Tensor], wanted: Set[str], may: Set[str] = frozenset()) -> None:
    names = set(state)
    if not wanted <= names <= wanted | may or any(one.dim() != 2 for one in state.values()):
        raise ValueError(f"expected the parameters {', '.join(sorted(wanted))}, got "
                         f"{', '.join(sorted(names)) or 'none'}")
