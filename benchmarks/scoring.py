"""Scoring real completions: `rewardsteer score` against transformers, row by row and in its
text-classification pipeline at the same batch size.

The rows are real GSM8K completions, 18 per question; reward models have random weights. Memory is
measured in separate processes by the number of rows; `runs/plot_scoring_memory.py` plots it.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun, Row, alone, device, in_turn, rates, side_by_side, timed
from rewardsteer.data.rows import open_rows
from rewardsteer.data.solutions import read_solutions
from rewardsteer.data.template import Template
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.training.memory import peak_memory

FILE = "completions/GSM8K_multi.jsonl.gz"
TEMPLATE = "{prompt}\n"


@dataclass(frozen=True)
class Sizes:
    """What the table measures.

    Attributes:
        backbones: each with its number of questions, 18 completions per question.
        batch: the pipeline's rows per batch; ours scores as many tokens together as such a batch
            has on average.
        grown: numbers of rows at which memory is measured.
        runs: number for each side.
    """

    backbones: tuple[tuple[Backbone, int], ...]
    batch: int
    grown: tuple[int, ...]
    runs: int


SMALL = Backbone(2, 64, 50_277, heads=4, feed_forward=256)
SIZES = Sizes(
    backbones=((SMALL, 60), (Backbone(4, 256, 50_277), 6)), batch=32,
    grown=(1_000, 10_000, 100_000), runs=3,
)
SETUP = (
    "Real GSM8K completions (6 models × 3 prompt styles per question) in the file's order; "
    f"float32. Against the pipeline, which scores {SIZES.batch} rows per batch, ours scores as "
    f"many tokens per batch as {SIZES.batch} rows have on average; elsewhere it uses its default "
    "for CPUs."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Rows per second of ours and transformers, and peak memory by the number of rows."""
    if not (shapes.DATA / FILE).exists():
        raise CannotRun(
            f"no real completions in {shapes.DATA}; set DATA to their folder."
        )
    results = []
    for backbone, questions in sizes.backbones:
        results += _speed(backbone, _rows(questions * 18), sizes)
    figures = [(count, alone("benchmarks.scoring", count)) for count in sizes.grown]
    least = figures[0][1]
    for count, found in figures:
        results.append({
            "case": f"peak memory, {count:,} rows in a file", "ours": found["memory"],
            "other": least["memory"], "ratio": found["memory"] / least["memory"], "unit": "MiB",
            "against": f"ours, {sizes.grown[0]:,} rows",
        })
    return results


def _speed(backbone: Backbone, rows: list[dict[str, Any]], sizes: Sizes) -> list[Row]:
    scorer, pipe = _scorer(backbone), _pipeline(backbone)
    lengths = [sum(map(len, ids)) for ids in zip(*_encoded(scorer, rows), strict=True)]
    tokens = sizes.batch * round(sum(lengths) / len(lengths))
    _agree(scorer, pipe, rows[:20], sizes.batch)
    goal = _goal(backbone.size)
    sides = {
        "one row at a time": (None, lambda: _looped(pipe, rows)),
        f"transformers' pipeline, batch {sizes.batch}":
            (tokens, lambda: _piped(pipe, rows, sizes.batch)),
    }
    found = []
    for name, (limit, other) in sides.items():
        ours = partial(_ours, scorer, rows, Settings(batch_tokens=limit))
        found.append(side_by_side(
            f"rewards, {backbone.layers} × {backbone.size}, {len(rows):,} rows", ours, other,
            work=len(rows), unit="rows/s", runs=sizes.runs,
        ) | {"against": name})
    seconds = in_turn([
        lambda: timed(lambda: _ours(scorer, rows, Settings(goal, True))),
        lambda: timed(lambda: _token_by_token(scorer, rows, goal)),
    ], sizes.runs)
    found.append(rates(
        f"rewards and similarities of every token, {backbone.layers} × {backbone.size}", seconds,
        work=len(rows), unit="rows/s",
    ) | {"against": "our scorer, one row at a time"})
    return found


def _ours(scorer: Scorer, rows: list[dict[str, Any]], settings: Settings) -> None:
    """Score as the command does once the model is loaded, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        score_rows(scorer, rows, Path(folder) / "y.jsonl", settings)


@torch.no_grad()
def _looped(pipe: Any, rows: list[dict[str, Any]]) -> list[float]:
    """Score by transformers in a loop of single rows; nothing is written."""
    return [
        pipe.model(**pipe.tokenizer(text, return_tensors="pt").to(pipe.device)).logits.item()
        for text in _texts(pipe, rows)
    ]


def _token_by_token(scorer: Scorer, rows: list[dict[str, Any]], goal: GoalState) -> None:
    """Score all tokens by our model in a loop of single rows; nothing is written."""
    for row in rows:
        scorer.token_scores([row["prompt"]], [row["completion"]], batch_size=1, goal=goal)


def _piped(pipe: Any, rows: list[dict[str, Any]], batch: int) -> list[float]:
    """Score whole texts by transformers' pipeline as documented; nothing is written."""
    found = pipe(_texts(pipe, rows), batch_size=batch, function_to_apply="none")
    return [one["score"] for one in found]


def _texts(pipe: Any, rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield row["prompt"] + "\n" + row["completion"] + pipe.tokenizer.eos_token


def _agree(scorer: Scorer, pipe: Any, rows: list[dict[str, Any]], batch: int) -> None:
    """Check that all sides give the same rewards."""
    ours = scorer.score([row["prompt"] for row in rows], [row["completion"] for row in rows])
    for theirs in (_piped(pipe, rows, batch), _looped(pipe, rows)):
        torch.testing.assert_close(ours.tolist(), theirs, rtol=1e-3, atol=1e-4)


def _pipeline(backbone: Backbone) -> Any:
    from transformers import TextClassificationPipeline

    model = backbone.classifier().eval()
    model.config.pad_token_id = shapes.tokenizer().pad_token_id
    return TextClassificationPipeline(
        model=model, tokenizer=shapes.tokenizer(), device=torch.device(device())
    )


def measure(count: int, sizes: Sizes = SIZES) -> None:
    """Score ``count`` rows of a file; print peak memory and rate."""
    scorer = _scorer(sizes.backbones[0][0])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "x.jsonl"
        with place.open("w") as stream:
            for row in itertools.islice(itertools.cycle(_rows(18_000)), count):
                stream.write(json.dumps(row) + "\n")
        began = time.perf_counter()
        score_rows(scorer, open_rows(place), Path(name) / "y.jsonl", Settings())
        seconds = time.perf_counter() - began
    print(json.dumps({"rows": count, "rate": count / seconds, "memory": peak_memory()}))


def _rows(count: int) -> list[dict[str, Any]]:
    found = (one for _, one in read_solutions(shapes.DATA / FILE))
    return [
        {"prompt": one.prompt, "completion": one.completion}
        for one in itertools.islice(found, count)
    ]


def _encoded(scorer: Scorer, rows: list[dict[str, Any]]) -> Any:
    return scorer.encode([row["prompt"] for row in rows], [row["completion"] for row in rows])


def _scorer(backbone: Backbone) -> Scorer:
    model = RewardModel(backbone.classifier().eval(), HeadConfig())
    return Scorer(model, shapes.tokenizer(), Template(prompt=TEMPLATE))


def _goal(size: int) -> GoalState:
    provenance = Provenance(kind="mean", model_fingerprint="", count=1)
    return GoalState("preferred", torch.randn(1, size), provenance)


if __name__ == "__main__":
    measure(int(sys.argv[1]))
