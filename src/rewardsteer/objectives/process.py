"""Cross-entropy on labelled steps: a process reward model with a scalar head.

The reward at the end of a step is the log-odds that the step is correct. Each labelled step is one
term, as in TRL's ``PRMTrainer``.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.objectives.numbers import check_number
from rewardsteer.tensors import PairBatch, RewardOutput


def process(
    output: RewardOutput, batch: PairBatch, *, soft: bool = False, threshold: float = 0.5
) -> ObjectiveResult:
    """−y·log σ(r) − (1 − y)·log(1 − σ(r)), the mean over all labelled steps of the batch.

    Args:
        output: needs ``prefix_rewards``, r of each step.
        batch: ``prefix_mask`` marks the ends of labelled steps, ``step_labels`` are their labels.
        soft: y is the label itself, such as the share of rollouts from this step that end well.
            False: y is 1 for a label above the threshold, else 0.
        threshold: of hard labels. 0 is the hard estimate of Math-Shepherd (arXiv 2312.08935): a
            step is correct if any rollout from it is.
    """
    rewards = output.prefix_rewards
    assert rewards is not None, "named in `needs`"
    labels = batch.step_labels.to(rewards.dtype)
    assert len(labels) == len(rewards), "one label for each marked step"
    targets = labels if soft else (labels > threshold).to(rewards.dtype)
    losses = binary_cross_entropy_with_logits(rewards, targets, reduction="sum")
    # Processes and batches hold different numbers of steps; each step counts the same.
    loss = global_mean(losses, batch.prefix_mask.sum())
    if not len(rewards):
        return ObjectiveResult(loss, {})
    right = (rewards > 0) == (labels > threshold)
    return ObjectiveResult(loss, {
        "step_accuracy": right.float().mean(),
        "step_reward": rewards.detach().sigmoid().mean(),
        "step_label": targets.mean(),
    })


def row_accuracy(output: RewardOutput, batch: PairBatch, threshold: float) -> Tensor:
    """Share of each row's steps whose prediction is the label ``[R]``; NaN without steps."""
    assert output.prefix_rewards is not None, "named in `needs`"
    mask = batch.prefix_mask
    right = torch.full(mask.shape, float("nan"), device=mask.device)
    right[mask] = ((output.prefix_rewards > 0) == (batch.step_labels > threshold)).float()
    return right.nanmean(dim=1)


def build(soft: bool = False, threshold: float = 0.5) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: an option is not of its type or range.
    """
    if not isinstance(soft, bool):
        raise ConfigError(f"soft must be true or false, got {soft!r}.")
    threshold = check_number("process", "threshold", threshold, 1)
    return Objective(
        "process",
        lambda output, batch: process(output, batch, soft=soft, threshold=threshold),
        rows="chosen",
        needs=frozenset({"prefix_rewards"}),
        prefixes="step_lengths",
        reading="step_logit",
        figures={"accuracy": lambda output, batch: row_accuracy(output, batch, threshold)},
    )
