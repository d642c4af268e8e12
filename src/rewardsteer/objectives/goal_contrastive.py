"""The contrastive objective of goal-conditioned reward models (arXiv 2407.13887).

States of a chosen response are pulled towards later states of the same response and pushed away
from states of the rejected response; the cosine to a goal state is then the value of a prefix.
"""

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from rewardsteer.configuration import load_config
from rewardsteer.distributed import gather_rows, global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult, split_pairs
from rewardsteer.objectives.contrastive import (
    ContrastResult,
    GoalContrastiveConfig,
    averaged_goals,
    cosine,
    row_numbers,
    take_states,
)
from rewardsteer.objectives.contrastive_published import published
from rewardsteer.objectives.positions import (
    PerRowGenerator,
    Spans,
    draw,
    draw_future,
    response_spans,
)
from rewardsteer.tensors import PairBatch, RewardOutput, TokenStates


def goal_contrastive(
    output: RewardOutput, batch: PairBatch, options: GoalContrastiveConfig
) -> ObjectiveResult:
    """The contrastive loss on the hidden states of a batch of pairs.

    With s, g⁺ a source and a later goal of the chosen response, s' another source, g⁻ a goal of
    the rejected response and τ the temperature:

    - ``future``: mean over rows of mean −log σ(cos(s, g⁺)/τ), plus that of −log σ(−cos(s', g⁻)/τ)
    - ``infonce``: −log [e⁺ / (e⁺ + Σ e⁻)], e⁺ = exp(cos(s, g⁺)/τ), the sum over e⁻ =
      exp(cos(s, g⁻)/τ) of the rejected states of all rows in the batch, of all processes
    - ``published``: −log mean σ(cos(s, g⁺)) − log(1 − mean σ(cos(s', g⁻)))

    A row without a later goal (a single token) has no positive pair; one whose responses differ in
    their ends alone has no negative one. A row that lacks pairs is left out of the mean
    (``published`` counts all rows). A batch without any pair gives 0.

    Args:
        output: needs ``states`` of all tokens.
        batch: pairs, ``response_mask [2B, T]``.
        options: see `GoalContrastiveConfig`.
    """
    # Cosines near one differ by less than bfloat16 can tell.
    states = output.states
    assert states is not None, "named in `needs`"
    with torch.autocast(states.flat.device.type, enabled=False):
        result = _FORMS[options.form](states, batch, options, _draws(batch, options.seed))
    metrics = {
        "goal_positive": result.goal_positive.detach(),
        "goal_negative": result.goal_negative.detach(),
    }
    return ObjectiveResult(result.loss, metrics)


def _draws(batch: PairBatch, seed: int) -> PerRowGenerator:
    """Random numbers for each row, which depend on the seed, the row's id (or its tokens, where it
    has none) and the update (`PairBatch.draw`), and not on other rows or processes."""
    names = batch.row_ids
    if not any(names):
        ids, real = (split_pairs(one, batch)[0] for one in (batch.input_ids, batch.attention_mask))
        rows = [row[mask.bool()].tolist() for row, mask in zip(ids, real, strict=True)]
        names = ["/".join(map(str, row)) for row in rows]
    return PerRowGenerator([zlib.crc32(f"{seed}/{batch.draw}/{name}".encode()) for name in names])


def _over_rows(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the means of values ``[B, S]`` over the rows that count, and their number."""
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return values.mean(1).where(rows, zero).sum(), rows.sum()


def _row_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Mean over values ``[B, S]`` of a row, then over the rows that count, of all processes."""
    return global_mean(*_over_rows(values, rows))


def _shown(values: Tensor, rows: Tensor) -> Tensor:
    """The same mean within this process, for the log; 0 without rows."""
    total, count = _over_rows(values, rows)
    return total / count.clamp(min=1)


def _draw_states(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> tuple[Tensor, Tensor, Tensor, tuple[Spans, Spans]]:
    """Sources ``[B, S, D]``, later goals ``[B, S or 1, D]``, which rows have them, and the spans
    of negative sources and goals."""
    chosen, rejected = response_spans(batch)
    sources = chosen.window(*options.source_window)
    source, goal, valid = draw_future(
        sources, chosen.window(*options.goal_window), options.positives, draws,
        shared_split=options.strategy == "cosine_avg",
    )
    ours, _ = row_numbers(states)
    spans = (sources, rejected.window(*options.goal_window))
    goals = averaged_goals(take_states(states, ours, goal), options)
    return take_states(states, ours, source), goals, valid, spans


def _future(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> ContrastResult:
    source, goal, valid, (sources, goals) = _draw_states(states, batch, options, draws)
    ours, theirs = row_numbers(states)
    positive = cosine(source, goal)
    both = (sources.lengths > 0) & (goals.lengths > 0)
    columns = [
        draw(span.begin, span.end, options.negatives, draws).where(both[:, None], 0)
        for span in (sources, goals)
    ]
    negative = cosine(
        take_states(states, ours, columns[0]),
        averaged_goals(take_states(states, theirs, columns[1]), options),
    )
    loss = _row_mean(-logsigmoid(positive / options.temperature), valid)
    loss = loss + _row_mean(-logsigmoid(-negative / options.temperature), both)
    return ContrastResult(loss, _shown(positive, valid), _shown(negative, both))


def _infonce(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> ContrastResult:
    source, goal, valid, (_, goals) = _draw_states(states, batch, options, draws)
    _, theirs = row_numbers(states)
    has_goal = goals.lengths > 0
    columns = draw(goals.begin, goals.end, options.negatives, draws)
    pool = take_states(states, theirs, columns.where(has_goal[:, None], 0))
    pool = averaged_goals(pool, options)
    # A chosen response should be far from the rejected states of every row.
    others = gather_rows(normalize(pool[has_goal], dim=-1).flatten(0, 1))
    negative = normalize(source, dim=-1) @ others.T
    positive = cosine(source, goal)
    logits = torch.cat([positive[..., None], negative], dim=-1) / options.temperature
    loss = _row_mean(torch.logsumexp(logits, dim=-1) - logits[..., 0], valid)
    met = negative[valid].sum() / max(negative[valid].numel(), 1)
    return ContrastResult(loss, _shown(positive, valid), met)


_Form = Callable[[TokenStates, PairBatch, GoalContrastiveConfig, PerRowGenerator], ContrastResult]
_FORMS: dict[str, _Form] = {"future": _future, "infonce": _infonce, "published": published}


def build(**options: Any) -> Objective:
    """The objective with its options bound; raises `ConfigError` on an unknown or wrong one."""
    try:
        config = load_config(GoalContrastiveConfig, options)
    except ConfigError as error:
        raise ConfigError(f"Options of the objective 'goal_contrastive': {error}") from error
    return Objective(
        "goal_contrastive",
        lambda output, batch: goal_contrastive(output, batch, config),
        needs=frozenset({"states"}),
    )
