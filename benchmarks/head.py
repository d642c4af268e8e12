"""The maximum over the vocabulary: found chunk by chunk against a tensor of all logits.

Both give the same values and gradients. Peak memory is that of the loss alone, measured in a
separate process beyond states, head and their gradients.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, alone, device, side_by_side
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.training.memory import peak_memory, reset_peak_memory


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    positions: int
    size: int
    vocabularies: tuple[int, ...]
    runs: int


SIZES = Sizes(positions=1024, size=512, vocabularies=(32_000, 128_000, 256_000), runs=3)
SETUP = (
    f"Forward and backward for {SIZES.positions:,} states of size {SIZES.size}; float32. Memory is "
    "that of the loss, without states, head and their gradients."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Positions per second, then memory, by vocabulary."""
    rows = []
    for vocabulary in sizes.vocabularies:
        hidden, layer = _inputs(vocabulary, sizes)
        rows.append(side_by_side(
            f"best next token, V = {vocabulary:,}", partial(_ours, hidden, layer),
            partial(_dense, hidden, layer), work=sizes.positions, unit="positions/s",
            runs=sizes.runs,
        ))
    for vocabulary in sizes.vocabularies:
        ours, other = (alone("benchmarks.head", side, vocabulary) for side in ("ours", "dense"))
        rows.append({
            "case": f"peak memory of the loss, V = {vocabulary:,}", "ours": ours, "other": other,
            "ratio": other / max(ours, 1.0), "unit": "MiB",
        })
    return rows


def _inputs(vocabulary: int, sizes: Sizes) -> tuple[Tensor, nn.Linear]:
    torch.manual_seed(0)
    with torch.device(device()):
        hidden = torch.randn(sizes.positions, sizes.size, requires_grad=True)
        return hidden, nn.Linear(sizes.size, vocabulary, bias=False)


def _ours(hidden: Tensor, layer: nn.Linear) -> None:
    hidden.grad = layer.weight.grad = None
    VocabularyHead(layer).best_next_token(hidden).square().mean().backward()


def _dense(hidden: Tensor, layer: nn.Linear) -> None:
    hidden.grad = layer.weight.grad = None
    layer(hidden).max(dim=-1).values.square().mean().backward()


def measure(side: str, vocabulary: int, sizes: Sizes = SIZES) -> None:
    """Print the peak memory of one loss, in MiB."""
    hidden, layer = _inputs(vocabulary, sizes)
    reset_peak_memory()
    before = peak_memory()
    (_ours if side == "ours" else _dense)(hidden, layer)
    # Both sides hold the gradients; only memory beyond them belongs to the loss.
    gradients = 4 * (hidden.numel() + layer.weight.numel()) / 2**20
    print(json.dumps(max(peak_memory() - before - gradients, 0.0)))


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
