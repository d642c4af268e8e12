"""Losses on single responses that are labelled good or bad, with no second one to compare with."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.agreement import Values, labelled_figures
from rewardsteer.objectives.base import Measures, Objective, ObjectiveResult
from rewardsteer.objectives.numbers import (
    check_name,
    check_number,
    mean_where,
    numbers_of,
)
from rewardsteer.tensors import PairBatch, RewardOutput

FORMS = ("logistic", "kto")


def labels(
    output: RewardOutput, batch: PairBatch, *, number: str = "label", form: str = "logistic",
    desirable_weight: float = 1.0, undesirable_weight: float = 1.0,
) -> ObjectiveResult:
    """The mean over all labelled responses; y is 1 for a desirable response and 0 for another.

    ``logistic`` is −w₁·y·log σ(r) − w₀·(1 − y)·log σ(−r): the reward is the log-odds that the label
    is good. ``kto`` is w₁·y·(1 − σ(r)) + w₀·(1 − y)·(1 − σ(−r)), the value function of KTO (arXiv
    2402.01306) with the reference point 0: a bounded loss, in which an incorrect label weighs
    little once the reward is far from it. KTO estimates its reference point from the divergence of
    a policy, which a reward model does not have.

    Args:
        output: needs ``sequence_rewards [R]``.
        batch: ``numbers`` holds the label ``[R]``, in [0, 1]; NaN where it is not known.
        number: its name.
        form: one of ``FORMS``.
        desirable_weight, undesirable_weight: w₁ and w₀. With fewer desirable responses than others,
            w₁ = undesirable ones / desirable ones lets both weigh the same in all.
    """
    rewards, given = output.sequence_rewards, numbers_of(batch, number)
    known = torch.isfinite(given)
    label = given.to(rewards.dtype).where(known, 0.0)
    weights = desirable_weight * label, undesirable_weight * (1 - label)
    if form == "kto":
        losses = weights[0] * torch.sigmoid(-rewards) + weights[1] * torch.sigmoid(rewards)
    else:
        losses = -weights[0] * logsigmoid(rewards) - weights[1] * logsigmoid(-rewards)
    loss = global_mean((losses * known).sum(), known.sum())
    judged = rewards.detach()
    return ObjectiveResult(loss, {
        "label_accuracy": mean_where(((judged > 0) == (label > 0.5)).float(), known),
        "reward": mean_where(judged, known), "label": mean_where(label, known),
    })


def label_columns(output: RewardOutput, batch: PairBatch, number: str) -> Tensor:
    """``[R, 2]``: reward and label."""
    columns = output.sequence_rewards, numbers_of(batch, number)
    return torch.stack([column.float() for column in columns], dim=1)


def label_figures(columns: Values) -> dict[str, float]:
    """Area under the ROC curve, and accuracy with the threshold 0."""
    return labelled_figures(
        columns, "label_accuracy", lambda rewards, given: (rewards > 0) == (given > 0.5)
    )


def build(
    number: str = "label", form: str = "logistic", desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: an option is not of its type or range.
    """
    if form not in FORMS:
        raise ConfigError(f"form of 'labels' must be {' or '.join(FORMS)}, got {form!r}.")
    name = check_name("labels", "number", number)
    weights = [
        check_number("labels", f"{side}_weight", value)
        for side, value in (("desirable", desirable_weight), ("undesirable", undesirable_weight))
    ]
    if not any(weights):
        raise ConfigError("The weights of 'labels' are both 0; set one of them above 0.")
    return Objective(
        "labels",
        lambda output, batch: labels(
            output, batch, number=name, form=form, desirable_weight=weights[0],
            undesirable_weight=weights[1],
        ),
        rows="responses",
        numbers=(name,),
        measures=Measures(
            lambda output, batch: label_columns(output, batch, name), label_figures,
            names=("auroc", "label_accuracy"),
        ),
    )
