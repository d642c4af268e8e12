"""Objectives: pure functions of a reward model's output and its batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardsteer.distributed import global_mean
from rewardsteer.tensors import PairBatch, PolicyBackup, RewardOutput


class ObjectiveResult(NamedTuple):
    """A scalar loss to minimise and detached scalars to log: means over the batch's rows, and the
    terms of a sum by name."""

    loss: Tensor
    metrics: dict[str, Tensor]
    terms: dict[str, Tensor] = {}  # noqa: RUF012 - read only


class Measures(NamedTuple):
    """Figures that evaluation during training computes on responses with numbers.

    Attributes:
        columns: ``(output, batch) → [X, C]``, the values kept of a batch; X may differ from batch
            to batch.
        figures: the figures by name, from the values of all batches ``[ΣX, C]``, float64.
        names: the figures' names; the first chooses the best checkpoint, higher being better.
    """

    columns: Callable[[RewardOutput, PairBatch], Tensor]
    figures: Callable[[np.ndarray], dict[str, float]]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """A loss with its options bound.

    Attributes:
        name: as in the registry; sums join names with ``+``.
        function: ``(output, batch) → ObjectiveResult``.
        rows: ``pairs`` when it uses rejected rows, ``chosen`` when it uses chosen rows alone,
            ``responses`` when it uses responses with numbers.
        needs: fields of `RewardOutput` that it uses, other than the rewards of whole rows; checked
            against the head before training starts.
        temperatures: of ``soft_next_token``, where it is needed.
        backups: of ``policy_backups``, where they are needed; the model then needs a policy.
        prefixes: the column of prefix lengths that it uses, or None for whole rows;
            ``step_lengths`` for the ends of steps, ``all`` for all tokens of responses with
            numbers.
        rewards: ``(output, batch) → [R]``, the reward of a whole row; None: that at its end.
        reading: meaning of the trained model's rewards, see `CheckpointCard.reading`.
        figures: ``(output, batch) → [B]`` by name, figures that evaluation averages over rows of
            one response, NaN where a row has none. A best checkpoint is chosen by ``accuracy``.
        measures: figures of evaluation on responses with numbers.
        numbers: names of the numbers of responses that it uses.
        attributes: names of the K attributes that the head must rate, in order; () for any head.
    """

    name: str
    function: Callable[[RewardOutput, PairBatch], ObjectiveResult]
    rows: Literal["pairs", "chosen", "responses"] = "pairs"
    needs: frozenset[str] = field(default_factory=frozenset)
    temperatures: frozenset[float] = field(default_factory=frozenset)
    backups: frozenset[PolicyBackup] = field(default_factory=frozenset)
    prefixes: (
        Literal["chosen_lengths", "pair_lengths", "step_lengths", "candidate_lengths", "all"] | None
    ) = None
    rewards: Callable[[RewardOutput, PairBatch], Tensor] | None = None
    reading: Literal["value", "log_probability", "step_logit"] = "value"
    figures: Mapping[str, Callable[[RewardOutput, PairBatch], Tensor]] = field(default_factory=dict)
    measures: Measures | None = None
    numbers: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()

    @property
    def best(self) -> str:
        """The figure of evaluation during training that chooses the best checkpoint."""
        return "accuracy" if self.measures is None else self.measures.names[0]

    def __call__(self, output: RewardOutput, batch: PairBatch) -> ObjectiveResult:
        return self.function(output, batch)


def split_pairs(rewards: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Rows ``[R, …]`` into chosen and rejected ``[B, …]``."""
    assert batch.paired, "this objective uses rejected rows"
    count = len(rewards) // 2
    return rewards[:count], rewards[count:]


def accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Share of pairs ranked correctly; a tie counts one half."""
    return (chosen > rejected).float().mean() + 0.5 * (chosen == rejected).float().mean()


def pairwise_logistic_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor, *, center_coefficient: float = 0.0,
    label_smoothing: float = 0.0,
) -> ObjectiveResult:
    """−(1 − ε) · log σ(d) − ε · log σ(−d) + c · (chosen + rejected)² with d = chosen − rejected −
    margin, the mean over the pairs of all processes; 0 where there is none.

    Args:
        chosen, rejected, margin: ``[N]``, in units of the rewards.
        center_coefficient: c.
        label_smoothing: ε, the probability that a preference is inverted.
    """
    gap = chosen - rejected
    losses = -logsigmoid(gap - margin)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * logsigmoid(margin - gap)
    if center_coefficient:
        losses = losses + center_coefficient * (chosen + rejected).square()
    # Processes may hold different numbers of pairs; each pair counts the same.
    # Filled in on the device; a copy from the host would make a GPU wait.
    count = torch.full((), float(len(gap)), device=gap.device)
    loss = global_mean(losses.sum(), count)
    if not len(gap):
        return ObjectiveResult(loss, {})
    return ObjectiveResult(loss, {
        "accuracy": accuracy(chosen, rejected).detach(),
        "reward_gap": gap.detach().mean(),
        "reward_chosen": chosen.detach().mean(),
        "reward_rejected": rejected.detach().mean(),
    })
