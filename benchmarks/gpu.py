"""A model of a billion weights on a GPU: speed, memory, and the largest batch that fits.

Each side runs in a process of its own, which doubles the batch until memory runs out.
"""

import dataclasses
import gc
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LlamaForSequenceClassification

from benchmarks.backbones import Backbone
from benchmarks.bradley_terry import SIDES
from benchmarks.harness import CannotRun, Row, alone, device, spread
from benchmarks.shapes import TLDR, Shape, take
from benchmarks.updates import Training
from rewardsteer.training.memory import peak_memory, reset_peak_memory

# Dense bfloat16 operations per second, from the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Sizes:
    """What the table measures; the batch doubles from the first to the last."""

    backbone: Backbone
    shape: Shape
    first_batch: int
    last_batch: int
    updates: int
    runs: int


# The shape of Llama-3.2-1B.
SIZES = Sizes(
    backbone=Backbone(16, 2048, 128_256, heads=32, key_value_heads=8, feed_forward=8192),
    shape=TLDR, first_batch=8, last_batch=1024, updates=4, runs=3,
)
SETUP = (
    f"{SIZES.backbone}, random weights, {SIZES.shape.name}, bf16; {SIZES.updates - 1} updates "
    "per run, after one that is not timed. MFU counts six operations per weight (without "
    "embeddings) and position; attention is not counted."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Tokens per second, MFU and peak memory by batch, and the largest batch."""
    if device() != "cuda":
        raise CannotRun("there is no GPU here.")
    return table([[alone("benchmarks.gpu", side) for side in SIDES] for _ in range(sizes.runs)])


def table(runs: Sequence[Sequence[Sequence[dict[str, Any]]]]) -> list[Row]:
    """Rows from results of `measure`, ``[runs][sides][batches]``, for batches that fit on both."""
    rows: list[Row] = []
    both = min(len(side) for run in runs for side in run)
    for index in range(both):
        found = [[side[index] for side in run] for run in runs]
        ours, other = (
            {name: statistics.median([run[side][name] for run in found]) for name in found[0][side]}
            for side in (0, 1)
        )
        rows.append({
            "case": f"batch {ours['batch']:.0f}", "ours": ours["tokens/s"],
            "other": other["tokens/s"], "unit": "tokens/s",
            **spread([run[0]["tokens/s"] / run[1]["tokens/s"] for run in found]),
            "MFU, %": f"{ours['MFU, %']:.1f} / {other['MFU, %']:.1f}",
            "peak memory, MiB": f"{ours['memory']:,.0f} / {other['memory']:,.0f}",
        })
    largest = [min(run[side][-1]["batch"] for run in runs) for side in (0, 1)]
    return [*rows, {
        "case": "largest batch that fits", "ours": largest[0], "other": largest[1],
        "ratio": largest[0] / largest[1], "unit": "pairs",
    }]


def measure(side: str, sizes: Sizes = SIZES) -> None:
    """Print the figures of each batch size, up to the largest that fits."""
    found: list[dict[str, float]] = []
    batch = sizes.first_batch
    while batch <= sizes.last_batch:
        gc.collect()
        torch.cuda.empty_cache()
        reset_peak_memory()
        try:
            found.append(_updates(side, sizes, batch))
        except torch.OutOfMemoryError:
            break
        batch *= 2
    if not found:
        raise RuntimeError(f"a batch of {sizes.first_batch} pairs does not fit into memory.")
    print(json.dumps(found))


def _updates(side: str, sizes: Sizes, batch: int) -> dict[str, float]:
    """Tokens per second, MFU (in percent) and peak memory of one batch size."""
    backbone = Counted(**dataclasses.asdict(sizes.backbone))
    pairs = take(sizes.shape, batch * sizes.updates, backbone.vocabulary)
    training = Training(backbone, pairs, batch)
    clock = SIDES[side](training)
    operations = 6 * backbone.weights() * sum(backbone.places[1 - sizes.updates :])
    return {
        "batch": batch,
        "tokens/s": training.timed_pairs * training.pair_tokens / clock.seconds,
        "MFU, %": 100 * operations / clock.seconds / _peak_operations(),
        "memory": peak_memory(),
    }


@dataclass(frozen=True)
class Counted(Backbone):
    """A backbone that counts the positions of each forward pass, padding included."""

    places: list[int] = field(default_factory=list)

    def classifier(self) -> LlamaForSequenceClassification:
        """The sequence classifier, with a hook that counts positions."""
        model = super().classifier()
        model.get_input_embeddings().register_forward_pre_hook(
            lambda _, inputs: self.places.append(inputs[0].numel())
        )
        return model

    def weights(self) -> int:
        """Number of weights that every position is multiplied with: all but the embeddings."""
        with torch.device("meta"):
            model = LlamaForSequenceClassification(self.config())
        return sum(p.numel() for name, p in model.named_parameters() if "embed" not in name)


def _peak_operations() -> float:
    """Operations per second of this GPU; infinite for an unknown one, so that its MFU is 0."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for known, peak in PEAK.items() if known in name), float("inf"))


if __name__ == "__main__":
    measure(sys.argv[1])
