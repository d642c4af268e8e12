"""The contrastive objective: time of updates with it against Bradley-Terry alone."""

import statistics
from dataclasses import dataclass
from functools import partial

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, in_turn, spread
from benchmarks.shapes import Shape, Synthetic, take
from benchmarks.updates import BRADLEY_TERRY, Training, by_fit
from rewardsteer.training.config import TermConfig


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    shape: Shape
    forms: tuple[str, ...]
    batch: int
    updates: int
    runs: int


# Solutions as long as GSM8K's.
SIZES = Sizes(
    backbone=Backbone(6, 384, 2048), forms=("infonce", "future", "published"), batch=8,
    shape=Synthetic("GSM8K shape (prompt 60, response 105)", 60, 105), updates=9, runs=9,
)
SETUP = (
    f"{SIZES.backbone}, {SIZES.shape.name}, batch {SIZES.batch}; {SIZES.updates - 1} updates "
    "per run, after one that is not timed. The ratio is the time with the objective over the time "
    "without it: lower is better."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Milliseconds per update with each form of the objective, and without it."""
    pairs = take(sizes.shape, sizes.batch * sizes.updates, sizes.backbone.vocabulary)
    training = Training(sizes.backbone, pairs, sizes.batch)

    def seconds(*terms: TermConfig) -> float:
        return by_fit(training, (BRADLEY_TERRY, *terms)).seconds

    goals = [
        TermConfig(name="goal_contrastive", weight=0.5, options={"form": form})
        for form in sizes.forms
    ]
    found = in_turn([seconds, *(partial(seconds, goal) for goal in goals)], sizes.runs)
    alone, *others = zip(*found, strict=True)
    to_milliseconds = 1000 / (sizes.updates - 1)
    rows = []
    for form, side in zip(sizes.forms, others, strict=True):
        figures = spread([one / plain for one, plain in zip(side, alone, strict=True)])
        rows.append({
            "case": f"bradley_terry + goal_contrastive, {form}",
            "ours": statistics.median(side) * to_milliseconds,
            "other": statistics.median(alone) * to_milliseconds,
            **figures, "unit": "ms/update", "overhead, %": 100 * (figures["ratio"] - 1),
        })
    return rows
