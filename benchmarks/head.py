"""The maximum over the vocabulary: found chunk by chunk against a tensor of all logits.

The same values and gradients; POSITIONS states of size SIZE and a head of V rows. Peak memory is
that of the loss alone: what a process of its own needs beyond states, head and their gradients.
"""

import json
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import peak_memory, side_by_side
from rewardsteer.models.heads.vocabulary import VocabularyHead

POSITIONS, SIZE = 1024, 512
VOCABULARIES = (32_000, 128_000, 256_000)


def run() -> list[dict[str, Any]]:
    rows = []
    for vocabulary in VOCABULARIES:
        hidden, layer = _inputs(vocabulary)
        rows.append(side_by_side(
            f"best next token, V = {vocabulary:,}", partial(_ours, hidden, layer),
            partial(_dense, hidden, layer), work=POSITIONS, unit="positions/s", runs=3,
        ))
    for vocabulary in VOCABULARIES:
        ours, other = (_memory(kind, vocabulary) for kind in ("ours", "dense"))
        rows.append({
            "case": f"peak memory of the loss, V = {vocabulary:,}", "ours": ours, "other": other,
            "ratio": other / max(ours, 1.0), "unit": "MiB",
        })
    return rows


def _inputs(vocabulary: int) -> tuple[Tensor, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(POSITIONS, SIZE, requires_grad=True)
    layer = nn.Linear(SIZE, vocabulary, bias=False)
    return hidden, layer


def _ours(hidden: Tensor, layer: nn.Linear) -> None:
    hidden.grad = layer.weight.grad = None
    VocabularyHead(layer).best_next_token(hidden).square().mean().backward()


def _dense(hidden: Tensor, layer: nn.Linear) -> None:
    hidden.grad = layer.weight.grad = None
    layer(hidden).max(dim=-1).values.square().mean().backward()


def _memory(kind: str, vocabulary: int) -> float:
    command = [sys.executable, "-m", "benchmarks.head", kind, str(vocabulary)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figure: float = json.loads(done.stdout.splitlines()[-1])
    return figure


def _measure(kind: str, vocabulary: int) -> None:
    hidden, layer = _inputs(vocabulary)
    before = peak_memory()
    value = (
        VocabularyHead(layer).best_next_token(hidden) if kind == "ours"
        else layer(hidden).max(dim=-1).values
    )
    value.square().mean().backward()
    grown = peak_memory() - before
    # The gradients are there either way; what comes on top is the loss's own.
    gradients = 4 * (hidden.numel() + layer.weight.numel()) / 2**20
    print(json.dumps(max(grown - gradients, 0.0)))


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]))
