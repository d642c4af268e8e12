"""Bradley-Terry: whole updates by `fit` against TRL's RewardTrainer, from the same weights."""

import json
import sys
from dataclasses import dataclass
from functools import partial

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, alone, held_memory, in_turn, rates
from benchmarks.shapes import GSM8K_ROWS, HH_ROWS, TLDR, ULTRAFEEDBACK, Shape, take
from benchmarks.updates import Clock, Training, by_fit, by_trl, check_same_loss
from rewardsteer.training.memory import peak_memory, reset_peak_memory

SIDES = {"ours": by_fit, "TRL": by_trl}


@dataclass(frozen=True)
class Sizes:
    """What the table measures; memory is measured at the first shape."""

    backbone: Backbone
    shapes: tuple[Shape, ...]
    batch: int
    updates: int
    runs: int

    def training(self, shape: Shape) -> Training:
        """One epoch over pairs of a shape."""
        pairs = take(shape, self.batch * self.updates, self.backbone.vocabulary)
        return Training(self.backbone, pairs, self.batch)


SIZES = Sizes(
    backbone=Backbone(6, 384, 2048), shapes=(TLDR, HH_ROWS, GSM8K_ROWS, ULTRAFEEDBACK), batch=8,
    updates=3, runs=3,
)
SETUP = (
    f"{SIZES.backbone}, batch {SIZES.batch}; {SIZES.updates - 1} updates per run, after one that "
    "is not timed. Token counts include the prompt of a pair twice and no padding."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Pairs per second at each shape, and peak memory at the first."""
    # All rows are read before any is trained on, so that missing data is reported at once.
    trainings = [sizes.training(shape) for shape in sizes.shapes]
    rows = [
        compare(shape.name, training, sizes.runs)
        for shape, training in zip(sizes.shapes, trainings, strict=True)
    ]
    ours, other = (alone("benchmarks.bradley_terry", side) for side in SIDES)
    return [*rows, {
        "case": f"peak memory of training, {sizes.shapes[0].name}", "ours": ours, "other": other,
        "ratio": other / max(ours, 1.0), "unit": "MiB",
    }]


def compare(case: str, training: Training, runs: int) -> Row:
    """Pairs and tokens per second of `fit` and TRL; their first losses must agree."""
    last: dict[str, Clock] = {}

    def seconds(side: str) -> float:
        last[side] = SIDES[side](training)
        return last[side].seconds

    found = in_turn([partial(seconds, side) for side in SIDES], runs)
    check_same_loss(last["ours"], last["TRL"])
    row = rates(case, found, work=training.timed_pairs, unit="pairs/s")
    return row | {
        f"tokens/s, {side}": row[column] * training.pair_tokens
        for side, column in zip(SIDES, ("ours", "other"), strict=True)
    }


def measure(side: str, sizes: Sizes = SIZES) -> None:
    """Print the peak memory of training in MiB, beyond what the process held before."""
    training = sizes.training(sizes.shapes[0])
    # Imported on both sides, so that code takes the same memory.
    from trl import RewardTrainer  # noqa: F401

    before = held_memory()
    reset_peak_memory()
    SIDES[side](training)
    print(json.dumps(peak_memory() - before))


if __name__ == "__main__":
    measure(sys.argv[1])
