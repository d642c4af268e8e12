"""``form: published`` of the contrastive objective: the loss of the code of arXiv 2407.13887.

It reproduces that code for comparison: all source × goal pairs of a row, logarithms of batch means
instead of means of logarithms, no temperature, and positions counted from the end of a response
with the draw of the token before the response that this entails. `goal_contrastive` has the forms
to train with.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rewardsteer.distributed import global_mean, of_update
from rewardsteer.objectives.contrastive import (
    ContrastResult,
    GoalContrastiveConfig,
    averaged_goals,
    row_numbers,
    take_states,
)
from rewardsteer.objectives.positions import PerRowGenerator
from rewardsteer.tensors import PairBatch, TokenStates


def published(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> ContrastResult:
    """The published loss; see `goal_contrastive`."""
    ours, theirs = row_numbers(states)
    source, goal, negative_source, negative_goal = published_columns(batch, options, draws)

    def pairs(first: Tensor, second: Tensor) -> Tensor:
        """All source × goal cosines of a row, ``[B, S·S]`` (or ``[B, S]`` with averaged goals)."""
        goals = averaged_goals(second, options)
        products = normalize(first, dim=-1) @ normalize(goals, dim=-1).transpose(1, 2)
        return products.flatten(1)

    positive = pairs(take_states(states, ours, source), take_states(states, ours, goal))
    negative = pairs(
        take_states(states, ours, negative_source), take_states(states, theirs, negative_goal)
    )
    means = [
        global_mean(
            torch.sigmoid(cosine).sum(), _number(cosine.numel(), cosine), of_batch=True
        )
        for cosine in (positive, negative)
    ]
    loss = -torch.log(means[0]) - torch.log(1 - means[1])
    loss = of_update(loss, _number(len(positive), loss))
    return ContrastResult(loss, positive.mean(), negative.mean())


def _number(value: int, like: Tensor) -> Tensor:
    """A number on a tensor's device, without a copy from the host."""
    return torch.full((), float(value), device=like.device)


def published_columns(
    batch: PairBatch, options: GoalContrastiveConfig, draws: PerRowGenerator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The published draw of columns: sources and goals ``[B, S]`` of the chosen rows, then
    negative sources (chosen) and goals (rejected) ``[B, U]``.

    u is uniform in [0, 1); f = (p − 1)·u + 1 for percentile p; the k-th token from the end is
    taken, k = ⌊f·n + 1⌋ with n response tokens, at most the row's length minus one. The pair of a
    positive source and goal is sorted so that the source has the smaller u. (k = n + 1, the token
    before the response, comes up for u = 0 and, always, for p = 1.)
    """
    lengths, responses = batch.attention_mask.sum(1), batch.response_mask.sum(1)
    device = batch.input_ids.device

    def columns(noise: Tensor, percentile: float, rows: slice) -> Tensor:
        fraction = (percentile - 1) * noise + 1
        back = (fraction * responses[rows, None] + 1).floor().long()
        back = torch.minimum(back, (lengths[rows, None] - 1).clamp(min=1))
        return batch.last_positions[rows, None] - (back - 1)

    # As published where the device has float64.
    wide = torch.float32 if device.type == "mps" else torch.float64
    count = len(lengths) // 2
    ours, theirs = slice(0, count), slice(count, None)
    def uniform() -> Tensor:
        return draws.uniform(options.negatives).to(device, wide)

    noise = draws.uniform(2, options.positives).sort(dim=1).values.to(device, wide)
    return (
        columns(noise[:, 0], options.source_percentile, ours),
        columns(noise[:, 1], options.goal_percentile, ours),
        columns(uniform(), options.source_percentile, ours),
        columns(uniform(), options.goal_percentile, theirs),
    )
