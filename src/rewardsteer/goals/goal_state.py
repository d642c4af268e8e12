"""Goal states: points in hidden-state space near which good responses end (arXiv 2407.13887)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from rewardsteer.configuration import Config
from rewardsteer.errors import ConfigError, DataError

GoalKind = Literal["mean", "contrast", "clusters", "nearest", "sum", "imported"]


class Provenance(Config):
    """The origin of a goal state.

    Attributes:
        kind: how it was made; see `GoalState`.
        model_fingerprint: of the reward model whose states these are.
        data_fingerprint: of the prepared data; "" when unknown.
        template: response template with which the responses were written.
        count: number of responses.
        neighbours: for ``nearest``: goals averaged for a prompt.
        weights: for ``sum``: the named goals and their weights.
    """

    kind: GoalKind
    model_fingerprint: str
    data_fingerprint: str = ""
    template: dict[str, Any] = Field(default_factory=dict)
    count: int = 0
    neighbours: int = 8
    weights: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class GoalState:
    """One named goal.

    - ``mean``: the mean last-token state of preferred responses (the published goal state).
    - ``contrast``: that of the preferred minus that of the rejected ones.
    - ``clusters``: k centres; a state is as similar to the goal as to the nearest centre.
    - ``nearest``: the mean of the goals whose prompt states are nearest to this prompt's.
    - ``sum``: a weighted sum of other goals, each scaled to unit length first.

    Attributes:
        name: of the goal.
        vectors: ``[K, D]`` float32; K = 1 but for ``clusters`` and ``nearest``.
        provenance: its origin.
        keys: for ``nearest``: ``[K, D]`` prompt states, one for each vector.
    """

    name: str
    vectors: Tensor
    provenance: Provenance
    keys: Tensor | None = field(default=None)

    def __post_init__(self) -> None:
        for label, tensor in (("goal state", self.vectors), ("keys of the goal state", self.keys)):
            if tensor is None:
                continue
            if tensor.dim() != 2 or not tensor.numel() or not tensor.is_floating_point():
                raise DataError(
                    f"The {label} {self.name!r} has the shape {tuple(tensor.shape)} of "
                    f"{tensor.dtype}; expected floating-point (count, hidden size)."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise DataError(f"The {label} {self.name!r} holds NaN or infinite numbers.")
        if bool((self.vectors.norm(dim=1) == 0).any()):
            raise DataError(
                f"The goal state {self.name!r} has length zero, so nothing can be similar to it."
            )

    @property
    def width(self) -> int:
        """Hidden size D."""
        return int(self.vectors.shape[1])

    def describe(self) -> dict[str, Any]:
        """Name and provenance as plain values, for settings beside results."""
        return {"name": self.name} | self.provenance.model_dump(mode="json")

    def similarity(self, hidden: Tensor, prompt_state: Tensor) -> Tensor:
        """Cosine ``[R, T]`` in [−1, 1] of every state to the goal, in float32 or wider.

        Args:
            hidden: ``[R, T, D]`` last-layer states.
            prompt_state: ``[R, D]`` states of the prompts' last tokens; only ``nearest`` uses them.
        """
        states = hidden if hidden.dtype == torch.float64 else hidden.float()
        directions, vectors = normalize(states, dim=-1), self.vectors.to(states)
        if self.keys is None:
            return (directions @ normalize(vectors, dim=-1).T).max(-1).values
        keys = normalize(self.keys.to(states), dim=-1)
        close = normalize(prompt_state.to(states), dim=-1) @ keys.T
        count = min(self.provenance.neighbours, len(keys))
        goals = vectors[close.topk(count, dim=-1).indices].mean(1)
        return (directions * normalize(goals, dim=-1)[:, None]).sum(-1)


def weighted_sum(
    name: str, goals: Mapping[str, GoalState], weights: Mapping[str, float]
) -> GoalState:
    """Σ wᵢ·ĝᵢ over named goals, ĝᵢ of unit length: for example helpful + 0.5·complex − verbose.

    Raises:
        ConfigError: an unknown name, or a goal that is no single vector.
        DataError: the sum has length zero, or the goals are of different models.
    """
    if unknown := sorted(set(weights) - set(goals)):
        raise ConfigError(
            f"Unknown goal(s) {', '.join(unknown)}; known: {', '.join(sorted(goals)) or 'none'}."
        )
    used = [goals[other] for other in weights]
    if not used:
        raise ConfigError("A sum of goals needs at least one of them.")
    several = [goal.name for goal in used if len(goal.vectors) != 1]
    if several:
        raise ConfigError(
            f"Goals of several vectors cannot be added: {', '.join(several)}; use goals of kind "
            "mean or contrast."
        )
    made = {(goal.provenance.model_fingerprint, goal.width) for goal in used}
    if len(made) > 1:
        raise DataError(f"The goals {', '.join(weights)} belong to different reward models.")
    total = sum(
        (weight * normalize(goals[other].vectors.double(), dim=-1)
         for other, weight in weights.items()),
        torch.zeros(1, used[0].width, dtype=torch.float64),
    )
    # Imported goals have no template; that of another goal of the same model applies.
    template = next((goal.provenance.template for goal in used if goal.provenance.template), {})
    provenance = used[0].provenance.model_copy(
        update={
            "kind": "sum", "weights": dict(weights), "template": template,
            "count": sum(goal.provenance.count for goal in used),
        }
    )
    return GoalState(name, total.float(), provenance)
