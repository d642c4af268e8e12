"""Settings of goal states. No torch here."""

from typing import Literal

from pydantic import Field

from rewardsteer.configuration import Config, Seed


class GoalConfig(Config):
    """How to make goal states from prepared comparisons.

    Attributes:
        kind: ``mean`` (published), ``contrast``, ``clusters`` or ``nearest``; see
            `rewardsteer.goals.goal_state.GoalState`.
        name: of the goal; with ``by_subset``, subsets give the names.
        by_subset: one goal for each subset of the data (the attributes of HelpSteer).
        split: rows to read.
        rows: use the first so many rows; None: all.
        clusters: centres of ``clusters``.
        neighbours: goals averaged for a prompt by ``nearest``.
        batch_tokens: tokens read together, padding included.
        seed: of the clustering.
    """

    kind: Literal["mean", "contrast", "clusters", "nearest"] = "mean"
    name: str = "preferred"
    by_subset: bool = False
    split: Literal["train", "test"] = "train"
    rows: int | None = Field(None, ge=1)
    clusters: int = Field(8, ge=1)
    neighbours: int = Field(8, ge=1)
    batch_tokens: int = Field(8192, ge=1)
    seed: Seed = 0
