"""Options and functions that the forms of the contrastive objective share."""

from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import normalize

from rewardsteer.configuration import Config, Seed
from rewardsteer.tensors import TokenStates

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
        negatives: further source states, drawn from the chosen response, and goal states, drawn
            from the rejected one.
        source_window, goal_window: the part of a response that sources and goals come from, as
            fractions of its length from the start. Not for ``published``.
        temperature: divides the cosine. Without it σ(cos) lies in [0.27, 0.73], so the loss cannot
            vanish and its gradients are small. Not for ``published``.
        source_percentile, goal_percentile: for ``published`` alone: the fraction counted from the
            *end* of the response that is never drawn.
        seed: of the draws, together with a row's id and the number of the update. So each epoch has
            new draws, and a resumed run has the same, on any number of processes.
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
    seed: Seed = 0

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


class ContrastResult(NamedTuple):
    """A loss and the mean cosines, of this process, that went into it."""

    loss: Tensor
    goal_positive: Tensor
    goal_negative: Tensor


def take_states(states: TokenStates, rows: Tensor, columns: Tensor) -> Tensor:
    """States ``[B, S, D]`` (float32 or wider) of rows ``[B]`` at columns ``[B, S]``."""
    taken = states.at(rows[:, None], columns)
    return taken if taken.dtype == torch.float64 else taken.float()


def row_numbers(states: TokenStates) -> tuple[Tensor, Tensor]:
    """Numbers ``[B]`` of the chosen and of the rejected rows."""
    first, second = torch.arange(
        len(states.flat_indices), device=states.flat_indices.device
    ).chunk(2)
    return first, second


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine over the last axis; shapes broadcast."""
    return (normalize(first, dim=-1) * normalize(second, dim=-1)).sum(-1)


def averaged_goals(goals: Tensor, options: GoalContrastiveConfig) -> Tensor:
    """Goals ``[B, S, D]``, or their row means ``[B, 1, D]`` under ``cosine_avg``."""
    return goals.mean(1, keepdim=True) if options.strategy == "cosine_avg" else goals
