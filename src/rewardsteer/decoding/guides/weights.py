"""How strongly rewards pull at the policy: a constant, a schedule, or what a KL divergence allows.

    guided scores = policy logits + w · rewards

One `Weight` serves every method that adds rewards to next-token logits, over the whole vocabulary
or over some candidates.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.kl_strength import kl_strength
from rewardsteer.kernels.precision import exact

# What rewards ``[B, K]`` add to the logits under weights ``[B, 1]``: ``[B, K]``.
Pull = Callable[[Tensor, Tensor], Tensor]


class Weight:
    """The weight of a run.

    Args:
        config: ``weight``, ``weight_schedule``, ``weight_end``, ``policy_power``, ``target_kl`` and
            ``max_kl`` are used; for a schedule ``max_new_tokens``, for a KL ``temperature`` and
            ``top_k`` too.
    """

    def __init__(self, config: DecodingConfig) -> None:
        self._config = config

    def at(self, step: int) -> float:
        """w of the token after ``step`` generated ones: from ``weight`` at the first token to
        ``weight_end`` at the last one that ``max_new_tokens`` allows."""
        config = self._config
        if config.weight_end is None:
            return config.weight
        done = min(step / max(config.max_new_tokens - 1, 1), 1.0)
        if config.weight_schedule == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return config.weight + (config.weight_end - config.weight) * done

    def guided(
        self, logits: Tensor, rewards: Tensor, steps: Sequence[int], known: Tensor | None = None,
        pull: Pull = torch.mul,
    ) -> Tensor:
        """Guided scores ``[B, K]`` (float32).

        With a target or limit of KL, the policy's ``top_k`` best are the candidates (all tokens
        where it is 0), as they are for plain sampling: between distributions on different tokens
        there is no finite KL. Others get -inf.

        Args:
            logits: ``[B, K]`` of the policy.
            rewards: ``[B, K]`` of the same tokens.
            steps: per row, tokens generated so far.
            known: ``[B, K]`` bool, False on tokens that the reward model does not know; None: it
                knows all.
            pull: what rewards add under a weight; their product unless a guide says otherwise.
        """
        added = pull(rewards, rewards.new_tensor([self.at(step) for step in steps])[:, None])
        if known is not None:
            added = floor_unknown(added, known)
        return self.added(logits, added)

    @property
    def power(self) -> float:
        """The policy's power α; unless it is 1, the policy's logits are part of the pull."""
        return self._config.policy_power

    @property
    def by_kl(self) -> bool:
        """Whether a KL divergence sets or limits w."""
        return self._config.target_kl is not None or self._config.max_kl is not None

    def added(self, logits: Tensor, pull: Tensor) -> Tensor:
        """Logits times the policy's power plus the weighted rewards ``[B, K]``, scaled where a KL
        divergence from the plain policy is set or limited."""
        if self.power != 1:
            # A token with probability 0 stays impossible.
            pull = pull + (self.power - 1) * logits.masked_fill(logits.isinf(), 0.0)
        if not self.by_kl:
            return logits + pull
        count = self._config.top_k
        if not 0 < count < logits.shape[1]:
            return self._steer(logits, pull)
        best, places = logits.topk(count, dim=-1)
        steered = self._steer(best, pull.gather(1, places))
        return torch.full_like(logits, -torch.inf).scatter(1, places, steered)

    def _steer(self, logits: Tensor, pull: Tensor) -> Tensor:
        """Logits + s · pull, with s from the target or the limit of the KL divergence."""
        config = self._config
        scores, pull = exact(logits), exact(pull)
        base = (scores / config.temperature).log_softmax(dim=-1)
        # A constant added to a row's rewards changes nothing; with their maximum at 0 nothing
        # overflows and the scores of likely tokens keep their digits in float32.
        pull = pull - pull.masked_fill(base.isneginf(), -torch.inf).amax(dim=-1, keepdim=True)
        target = config.max_kl if config.target_kl is None else config.target_kl
        assert target is not None, "one of the two is set"
        strength = kl_strength(base, pull / config.temperature, target)
        if config.target_kl is None:
            strength = strength.clamp(max=1.0)
        steered = torch.where(pull < 0, scores + strength[:, None] * pull, scores)
        return steered.to(logits)


class KnownWeights:
    """One `Weight` per settings object, so that samples with the same settings share it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[DecodingConfig, Weight]] = {}

    def of(self, config: DecodingConfig, most: int) -> Weight:
        """The weight of settings; about ``most`` weights are kept."""
        known = self._known.get(id(config))
        if known is None or known[0] is not config:
            if len(self._known) > most:
                self._known.clear()
            known = self._known[id(config)] = (config, Weight(config))
        return known[1]


class RowWeights(Weight):
    """Every row's own weight, for batches of rows with settings of their own; rows of one request
    or run share an object.

    Attributes:
        rows: the weights of the rows that `guided` is asked about, in their order.
    """

    def __init__(self) -> None:
        super().__init__(DecodingConfig())
        self.rows: Sequence[Weight] = ()

    def guided(
        self, logits: Tensor, rewards: Tensor, steps: Sequence[int], known: Tensor | None = None,
        pull: Pull = torch.mul,
    ) -> Tensor:
        """Guided scores ``[B, K]`` (float32)."""
        if len({id(weight) for weight in self.rows}) == 1:
            return self.rows[0].guided(logits, rewards, steps, known, pull)
        own = [weight.at(step) for weight, step in zip(self.rows, steps, strict=True)]
        added = pull(rewards, rewards.new_tensor(own)[:, None])
        if known is not None:
            added = floor_unknown(added, known)
        scores = logits + added
        for row, weight in enumerate(self.rows):
            if weight.by_kl or weight.power != 1:
                one = slice(row, row + 1)
                scores[one] = weight.added(logits[one], added[one])
        return scores


def weights_of(weight: Weight, rows: Sequence[int]) -> Weight:
    """The weight of some rows of a batch."""
    if not isinstance(weight, RowWeights):
        return weight
    part = RowWeights()
    part.rows = [weight.rows[row] for row in rows]
    return part


def floor_unknown(pull: Tensor, known: Tensor) -> Tensor:
    """Give tokens that the reward model does not know the least of their row.

    Guidance then never favours them, under a negative weight neither; a row without any known token
    gets zeros.

    Args:
        pull: ``[B, K]`` weighted rewards.
        known: ``[B, K]`` bool.
    """
    least = pull.masked_fill(~known, torch.inf).amin(dim=1, keepdim=True)
    least = least.masked_fill(~known.any(dim=1, keepdim=True), 0.0)
    return torch.where(known, pull, least)
