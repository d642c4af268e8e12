"""Scoring completions token by token: token-budget batches against one row at a time.

Real GSM8K completions with a tiny reward model and goal state. The whole set runs in a process of
its own, so that its peak memory is its own.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun, Row, alone, side_by_side, synchronise
from rewardsteer.data.solutions import read_solutions
from rewardsteer.data.template import Template
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.training.memory import peak_memory

FILE = "completions/GSM8K_multi.jsonl.gz"


@dataclass(frozen=True)
class Sizes:
    """What the table measures: about ``sample`` completions, then all."""

    backbone: Backbone
    sample: int
    runs: int


SIZES = Sizes(
    backbone=Backbone(2, 64, 50_277, heads=4, feed_forward=256), sample=1500, runs=3
)
SETUP = f"{SIZES.backbone}; real GSM8K completions (6 models × 3 prompts); float32."


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Rows per second on a sample and on all, and peak memory."""
    place = shapes.DATA / FILE
    if not place.exists():
        raise CannotRun(f"no real completions at {place}; set DATA to the folder that has them.")
    rows = _rows()
    sample = rows[:: max(len(rows) // sizes.sample, 1)]
    scorer, goal = _scorer(sizes), _goal(sizes)
    results = [side_by_side(
        f"per-token scores, {len(sample):,} GSM8K completions",
        lambda: _all_at_once(scorer, sample, goal), lambda: _one_by_one(scorer, sample, goal),
        work=len(sample), unit="rows/s", runs=sizes.runs,
    )]
    whole, loop = (alone("benchmarks.scoring", side) for side in ("whole", "loop"))
    results.append({
        "case": f"the same, all {whole['rows']:,} completions, once", "ours": whole["rate"],
        "other": loop["rate"], "ratio": whole["rate"] / loop["rate"], "unit": "rows/s",
    })
    results.append({
        "case": "peak memory of that process", "ours": whole["memory"], "other": loop["memory"],
        "ratio": loop["memory"] / whole["memory"], "unit": "MiB",
    })
    return results


def _all_at_once(scorer: Scorer, rows: list[dict[str, Any]], goal: GoalState) -> None:
    with tempfile.TemporaryDirectory() as folder:
        score_rows(scorer, rows, Path(folder) / "y.jsonl", Settings(goal, True))


def _one_by_one(scorer: Scorer, rows: list[dict[str, Any]], goal: GoalState) -> None:
    for row in rows:
        scorer.token_scores([row["prompt"]], [row["completion"]], batch_size=1, goal=goal)


def measure(side: str, sizes: Sizes = SIZES) -> None:
    """Print the rate and the peak memory of scoring all completions."""
    rows, scorer, goal = _rows(), _scorer(sizes), _goal(sizes)
    began = time.perf_counter()
    (_all_at_once if side == "whole" else _one_by_one)(scorer, rows, goal)
    synchronise()
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": len(rows), "rate": len(rows) / seconds, "memory": peak_memory()}))


def _rows() -> list[dict[str, Any]]:
    found = read_solutions(shapes.DATA / FILE)
    return [one.model_dump(mode="json", exclude_defaults=True) for _, one in found]


def _scorer(sizes: Sizes) -> Scorer:
    model = RewardModel(sizes.backbone.classifier().eval(), HeadConfig())
    return Scorer(model, shapes.tokenizer(), Template(prompt="{prompt}\n"))


def _goal(sizes: Sizes) -> GoalState:
    provenance = Provenance(kind="mean", model_fingerprint="", count=1)
    return GoalState("preferred", torch.randn(1, sizes.backbone.size), provenance)


if __name__ == "__main__":
    measure(sys.argv[1])
