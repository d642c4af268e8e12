"""Scoring completions token by token: token-budget batches against one row at a time.

Real GSM8K completions with a tiny reward model and goal state. Needs the folder of public rows that
DATA names; without it the table is left out. The whole set runs in a process of its own, so that
its peak memory is its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.harness import peak_memory, side_by_side
from rewardsteer.data.solutions import read_solutions
from rewardsteer.data.template import Template
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer

DATA = Path(os.environ.get("DATA", "../shared/data"))
SAMPLE = 1500


def run() -> list[dict[str, Any]]:
    if not (DATA / "completions").is_dir():
        print(f"scoring: no real completions under {DATA}; set DATA to the folder that has them")
        return []
    rows, scorer, goal = _rows(), _scorer(), _goal()
    sample = rows[:: len(rows) // SAMPLE]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            score_rows(scorer, sample, Path(folder) / "y.jsonl", Settings(goal, True))

    def one_by_one() -> None:
        for row in sample:
            scorer.token_scores([row["prompt"]], [row["completion"]], batch_size=1, goal=goal)

    results = [side_by_side(
        f"per-token scores, {len(sample)} GSM8K completions", ours, one_by_one, work=len(sample),
        unit="rows/s", runs=3,
    )]
    whole, loop = (_alone(kind) for kind in ("whole", "loop"))
    results.append({
        "case": f"the same, all {whole['rows']} completions", "ours": whole["rate"],
        "other": loop["rate"], "ratio": whole["rate"] / loop["rate"], "unit": "rows/s",
    })
    results.append({
        "case": "peak memory of that process", "ours": whole["memory"], "other": loop["memory"],
        "ratio": loop["memory"] / whole["memory"], "unit": "MiB",
    })
    return results


def _alone(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scoring", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _measure(kind: str) -> None:
    rows, scorer, goal = _rows(), _scorer(), _goal()
    began = time.perf_counter()
    if kind == "whole":
        with tempfile.TemporaryDirectory() as folder:
            score_rows(scorer, rows, Path(folder) / "y.jsonl", Settings(goal, True))
    else:
        for row in rows:
            scorer.token_scores([row["prompt"]], [row["completion"]], batch_size=1, goal=goal)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": len(rows), "rate": len(rows) / seconds, "memory": peak_memory()}))


def _rows() -> list[dict[str, Any]]:
    found = read_solutions(DATA / "completions" / "GSM8K_multi.jsonl.gz")
    return [one.model_dump(mode="json", exclude_defaults=True) for _, one in found]


def _scorer() -> Scorer:
    import gzip

    from tokenizers import Tokenizer

    torch.manual_seed(0)
    text = gzip.decompress((DATA / "tokenizers/gpt-neox-20b/tokenizer.json.gz").read_bytes())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text.decode()), eos_token="<|endoftext|>",
        pad_token="<|padding|>",
    )
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, num_labels=1,
        eos_token_id=0, pad_token_id=1,
    )
    model = RewardModel(LlamaForSequenceClassification(shape).eval(), HeadConfig())
    return Scorer(model, tokenizer, Template(prompt="{prompt}\n"))


def _goal() -> GoalState:
    provenance = Provenance(kind="mean", model_fingerprint="", count=1)
    return GoalState("preferred", torch.randn(1, 64), provenance)


if __name__ == "__main__":
    _measure(sys.argv[1])
