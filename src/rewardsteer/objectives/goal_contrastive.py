"""The contrastive objective of goal-conditioned reward models (arXiv 2407.13887).

States of a chosen response are drawn towards the states that come later in it, and away from
states of the rejected response; the cosine to a goal state then serves as the value of a prefix.
"""

import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from rewardsteer.configuration import Config, load_config
from rewardsteer.distributed import (
    gather_rows,
    global_mean,
    of_update,
)
from rewardsteer.objectives.base import Objective, ObjectiveResult, split_pairs
from rewardsteer.objectives.positions import (
    PerRowGenerator,
    Spans,
    draw,
    draw_future,
    response_spans,
)
from rewardsteer.tensors import PairBatch, RewardOutput, TokenStates

Window = tuple[float, float]


class GoalContrastiveConfig(Config):
    """Options of the objective.

    Attributes:
        form: ``future`` (each goal strictly later than its source, a log-sigmoid a pair, averaged
            by row, with a temperature), ``infonce`` (the goal against the rejected states of all
            rows in the batch) or ``published`` (all pairs, logarithms of batch means, positions
            counted from the end, no temperature), for comparison.
        strategy: ``cosine`` compares source and goal states; ``cosine_avg`` averages the goal
            states of a row first.
        positives: source and goal states drawn from each chosen response.
        negatives: source states drawn anew from the chosen and goal states from the rejected one.
        source_window, goal_window: the part of a response that sources and goals come from, as
            fractions of its length from the start. Not for ``published``.
        temperature: divides the cosine. Without it σ(cos) lies in [0.27, 0.73]: the loss can
            neither vanish nor push hard. Not for ``published``.
        source_percentile, goal_percentile: for ``published`` alone: the fraction counted from the
            *end* of the response that is never drawn.
        seed: of the draws. With a row's id and the number of the update it decides them: each
            epoch draws anew, and an interrupted run that goes on draws the same, on however many
            processes.
    """

    form: Literal["future", "infonce", "published"] = "infonce"
    strategy: Literal["cosine", "cosine_avg"] = "cosine"
    positives: int = Field(16, ge=1)
    negatives: int = Field(16, ge=1)
    source_window: Window = (0.0, 1.0)
    goal_window: Window = (0.0, 1.0)
    temperature: float = Field(0.1, gt=0)
    source_percentile: float = Field(0.0, ge=0, le=1)
    goal_percentile: float = Field(0.0, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> "GoalContrastiveConfig":
        for name in ("source_window", "goal_window"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ValueError(f"{name} must be (low, high) with 0 <= low < high <= 1")
        if self.goal_window[1] <= self.source_window[0]:
            raise ValueError("goal_window must not end before source_window begins")
        given = self.model_fields_set
        foreign = {"source_window", "goal_window", "temperature"}
        if self.form != "published":
            foreign = {"source_percentile", "goal_percentile"}
        if wrong := sorted(given & foreign):
            raise ValueError(f"form {self.form!r} does not use {', '.join(wrong)}")
        return self


class _Result(NamedTuple):
    """A loss and the mean cosines, of this process, that went into it."""

    loss: Tensor
    goal_positive: Tensor
    goal_negative: Tensor


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

    A row without a later goal (a single token) has no positive pair, one whose responses differ by
    an ending alone no negative one; what a row lacks it leaves out of the means (``published``
    counts everything). A batch without any pair gives 0.

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
    """Each row's own draws, decided by the seed, its id (or its tokens, where it has none) and the
    update (`PairBatch.draw`): the same whatever rows are read beside it and wherever."""
    names = batch.row_ids
    if not any(names):
        ids, real = (split_pairs(one, batch)[0] for one in (batch.input_ids, batch.attention_mask))
        rows = [row[mask.bool()].tolist() for row, mask in zip(ids, real, strict=True)]
        names = ["/".join(map(str, row)) for row in rows]
    return PerRowGenerator([zlib.crc32(f"{seed}/{batch.draw}/{name}".encode()) for name in names])


def _take(states: TokenStates, rows: Tensor, columns: Tensor) -> Tensor:
    """States ``[B, S, D]`` (float32 or wider) of rows ``[B]`` at columns ``[B, S]``."""
    taken = states.at(rows[:, None], columns)
    return taken if taken.dtype == torch.float64 else taken.float()


def _rows(states: TokenStates) -> tuple[Tensor, Tensor]:
    """Numbers ``[B]`` of the chosen and of the rejected rows."""
    first, second = torch.arange(
        len(states.flat_indices), device=states.flat_indices.device
    ).chunk(2)
    return first, second


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine over the last axis; shapes broadcast."""
    return (normalize(first, dim=-1) * normalize(second, dim=-1)).sum(-1)


def _average(goals: Tensor, options: GoalContrastiveConfig) -> Tensor:
    """Goals ``[B, S, D]``, or their row means ``[B, 1, D]`` under ``cosine_avg``."""
    return goals.mean(1, keepdim=True) if options.strategy == "cosine_avg" else goals


def _over_rows(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the means of values ``[B, S]`` over the rows that count, and their number."""
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return values.mean(1).where(rows, zero).sum(), rows.sum()


def _row_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Mean over values ``[B, S]`` of a row, then over the rows that count, of all processes."""
    return global_mean(*_over_rows(values, rows))


def _shown(values: Tensor, rows: Tensor) -> Tensor:
    """The same mean within this process, for the log; 0 when no row counts."""
    total, count = _over_rows(values, rows)
    return total / count.clamp(min=1)


def _draw_states(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> tuple[Tensor, Tensor, Tensor, tuple[Spans, Spans]]:
    """Sources ``[B, S, D]``, later goals ``[B, S or 1, D]``, which rows have them, and the spans
    of negative sources and goals."""
    chosen, rejected = response_spans(batch, skip_common=True)
    sources = chosen.window(*options.source_window)
    source, goal, valid = draw_future(
        sources, chosen.window(*options.goal_window), options.positives, draws,
        shared_split=options.strategy == "cosine_avg",
    )
    ours, _ = _rows(states)
    spans = (sources, rejected.window(*options.goal_window))
    goals = _average(_take(states, ours, goal), options)
    return _take(states, ours, source), goals, valid, spans


def _future(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> _Result:
    source, goal, valid, (sources, goals) = _draw_states(states, batch, options, draws)
    ours, theirs = _rows(states)
    positive = _cosine(source, goal)
    both = (sources.lengths > 0) & (goals.lengths > 0)
    columns = [
        draw(span.begin, span.end, options.negatives, draws).where(both[:, None], 0)
        for span in (sources, goals)
    ]
    negative = _cosine(
        _take(states, ours, columns[0]), _average(_take(states, theirs, columns[1]), options)
    )
    loss = _row_mean(-logsigmoid(positive / options.temperature), valid)
    loss = loss + _row_mean(-logsigmoid(-negative / options.temperature), both)
    return _Result(loss, _shown(positive, valid), _shown(negative, both))


def _infonce(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> _Result:
    source, goal, valid, (_, goals) = _draw_states(states, batch, options, draws)
    _, theirs = _rows(states)
    has_goal = goals.lengths > 0
    columns = draw(goals.begin, goals.end, options.negatives, draws)
    pool = _average(_take(states, theirs, columns.where(has_goal[:, None], 0)), options)
    # Rejected states of every row: all of them are what a good response should be far from.
    others = gather_rows(normalize(pool[has_goal], dim=-1).flatten(0, 1))
    negative = normalize(source, dim=-1) @ others.T
    positive = _cosine(source, goal)
    logits = torch.cat([positive[..., None], negative], dim=-1) / options.temperature
    loss = _row_mean(torch.logsumexp(logits, dim=-1) - logits[..., 0], valid)
    met = negative[valid].sum() / max(negative[valid].numel(), 1)
    return _Result(loss, _shown(positive, valid), met)


def _published(
    states: TokenStates, batch: PairBatch, options: GoalContrastiveConfig,
    draws: PerRowGenerator,
) -> _Result:
    ours, theirs = _rows(states)
    source, goal, negative_source, negative_goal = published_columns(batch, options, draws)

    def pairs(first: Tensor, second: Tensor) -> Tensor:
        """All source × goal cosines of a row, ``[B, S·S]`` (or ``[B, S]`` with averaged goals)."""
        goals = _average(second, options)
        products = normalize(first, dim=-1) @ normalize(goals, dim=-1).transpose(1, 2)
        return products.flatten(1)

    positive = pairs(_take(states, ours, source), _take(states, ours, goal))
    negative = pairs(_take(states, ours, negative_source), _take(states, theirs, negative_goal))
    means = [
        global_mean(
            torch.sigmoid(cosine).sum(), torch.tensor(float(cosine.numel())), of_batch=True
        )
        for cosine in (positive, negative)
    ]
    loss = -torch.log(means[0]) - torch.log(1 - means[1])
    loss = of_update(loss, torch.tensor(float(len(positive))))
    return _Result(loss, positive.mean(), negative.mean())


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


_Form = Callable[[TokenStates, PairBatch, GoalContrastiveConfig, PerRowGenerator], _Result]
_FORMS: dict[str, _Form] = {"future": _future, "infonce": _infonce, "published": _published}


def build(**options: Any) -> Objective:
    """The objective with its options bound; raises `ConfigError` on an unknown or wrong one."""
    config = load_config(GoalContrastiveConfig, options)
    return Objective(
        "goal_contrastive",
        lambda output, batch: goal_contrastive(output, batch, config),
        needs=frozenset({"states"}),
    )
