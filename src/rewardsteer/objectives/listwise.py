"""Losses on the order of K responses to one prompt: Plackett-Luce, or all of their pairs."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.agreement import Values, pair_accuracy
from rewardsteer.objectives.base import Measures, Objective, ObjectiveResult
from rewardsteer.objectives.numbers import (
    better,
    check_name,
    numbers_of,
    pair_columns,
)
from rewardsteer.tensors import PairBatch, RewardOutput

FORMS = ("plackett_luce", "pairs")


def listwise(
    output: RewardOutput, batch: PairBatch, *, number: str = "rating", form: str = "plackett_luce"
) -> ObjectiveResult:
    """The mean over all prompts of which two responses differ in their rating.

    ``plackett_luce`` is −Σ_i log(e^{r_i} / Σ_j e^{r_j}) over a prompt's responses, where j ranges
    over i and the responses that are rated lower. ``pairs``
    is −log σ(r_i − r_j), the mean over a prompt's pairs (arXiv 2203.02155). In both, responses with
    equal ratings are not compared, and a prompt counts the same however many responses it has.

    Args:
        output: needs ``sequence_rewards [R]``.
        batch: ``numbers`` holds the rating ``[R]``, higher being better; NaN where it is not known.
        number: its name.
        form: one of ``FORMS``.
    """
    rewards = output.sequence_rewards
    above = better(batch, numbers_of(batch, number))
    pairs = _by_prompt(batch, above.sum(1).to(rewards.dtype))
    if form == "pairs":
        losses = -(logsigmoid(rewards[:, None] - rewards[None, :]) * above).sum(1)
        totals = _by_prompt(batch, losses) / pairs.clamp(min=1)
    else:
        among = above | torch.eye(len(rewards), dtype=torch.bool, device=above.device)
        others = rewards.expand(len(rewards), -1).where(among, -math.inf)
        # A response with none below it is alone, and its loss 0.
        totals = _by_prompt(batch, others.logsumexp(1) - rewards)
    loss = global_mean(totals.sum(), (pairs > 0).sum())
    compared, right = pair_columns(batch, rewards.detach(), numbers_of(batch, number)).T
    return ObjectiveResult(loss, {"pair_accuracy": right.sum() / compared.sum().clamp(min=1)})


def _by_prompt(batch: PairBatch, values: Tensor) -> Tensor:
    """Sums ``[B]`` of values ``[R]`` over the responses to each prompt."""
    return values.new_zeros(len(batch.margin)).index_add(0, batch.groups, values)


def order_columns(output: RewardOutput, batch: PairBatch, number: str) -> Tensor:
    """``[R, 4]``: the two of `pair_columns`, and of each prompt, in the row of its first response,
    whether it is compared and whether its highest reward is that of a best response (0 in other
    rows; of several highest ones, the share that are)."""
    rewards, ratings = output.sequence_rewards, numbers_of(batch, number)
    same = batch.groups[:, None] == batch.groups[None, :]
    known = torch.isfinite(ratings)
    below = better(batch, ratings)
    others = same & known[None, :]
    highest = known & (~others | (rewards[:, None] >= rewards[None, :])).all(1)
    good = highest & ~below.any(0)
    first = torch.ones_like(known)
    first[1:] = batch.groups[1:] != batch.groups[:-1]
    compared = first & (_by_prompt(batch, below.sum(1).float()) > 0)[batch.groups]
    share = _by_prompt(batch, good.float()) / _by_prompt(batch, highest.float()).clamp(min=1)
    pairs = pair_columns(batch, rewards, ratings)
    top = torch.stack([compared.float(), share[batch.groups] * compared], dim=1)
    return torch.cat([pairs.float(), top], dim=1)


def order_figures(columns: Values) -> dict[str, float]:
    """Accuracy on pairs of responses to the same prompt, and the share of prompts whose highest
    reward is that of a best response."""
    pairs, right, prompts, top = columns.T
    if not prompts.sum():
        return {}
    return {
        "pair_accuracy": pair_accuracy(pairs, right), "best_first": float(top.sum() / prompts.sum())
    }


def build(number: str = "rating", form: str = "plackett_luce") -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: an option is not of its type or range.
    """
    if form not in FORMS:
        raise ConfigError(f"form of 'listwise' must be {' or '.join(FORMS)}, got {form!r}.")
    name = check_name("listwise", "number", number)
    return Objective(
        "listwise",
        lambda output, batch: listwise(output, batch, number=name, form=form),
        rows="responses",
        numbers=(name,),
        measures=Measures(
            lambda output, batch: order_columns(output, batch, name), order_figures,
            names=("pair_accuracy", "best_first"),
        ),
    )
