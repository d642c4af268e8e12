"""Print the tables of docs/scaling.md, computed from its assumptions.

    python runs/scaling_plan.py                      # an 8B reward model
    python runs/scaling_plan.py --layers 80 --hidden 8192 --feed-forward 28672
"""

import argparse
from dataclasses import dataclass

from rewardsteer.reports.tables import markdown

GB = 1e9


@dataclass(frozen=True)
class Assumptions:
    """The assumptions of the arithmetic.

    Attributes:
        layers, hidden, feed_forward, key_values, vocabulary: the shape (Llama 3 8B).
        peak: bf16 operations per second of a GPU (H100).
        training_use, scoring_use: the share of ``peak`` that is reached.
        disk: bytes per second that one machine of 8 GPUs writes; all_disks: of the file system.
        between_failures: hours between failures of one GPU with its share of the machine
            (54 days on 16,384 GPUs with 419 unexpected stops, arXiv 2407.21783).
        pair: tokens of a pair with its prompt once; micro_batch: pairs per GPU and step.
        prompt, completion, samples: tokens of a row to score, and completions per prompt.
        text: bytes per token in a file.
        batch_tokens: the option of `rewardsteer score`.
    """

    layers: int = 32
    hidden: int = 4096
    feed_forward: int = 14336
    key_values: int = 1024
    vocabulary: int = 128_256
    peak: float = 989e12
    training_use: float = 0.4
    scoring_use: float = 0.5
    disk: float = 2e9
    all_disks: float = 100e9
    between_failures: float = 54 * 24 * 16_384 / 419
    pair: int = 420
    micro_batch: int = 8
    prompt: int = 150
    completion: int = 250
    samples: int = 16
    text: float = 4.2
    batch_tokens: int = 32_768

    @property
    def layer(self) -> int:
        """Weights of a layer: four attention matrices and three of the feed-forward part."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.key_values
        return attention + 3 * self.hidden * self.feed_forward

    @property
    def body(self) -> int:
        """Weights of all layers, which every token passes through."""
        return self.layers * self.layer

    @property
    def weights(self) -> int:
        """All weights with a scalar head; a vocabulary head has V · D more."""
        return self.body + self.vocabulary * self.hidden

    @property
    def saved(self) -> int:
        """Bytes per token that one layer keeps for the backward pass, in bf16."""
        return 2 * (7 * self.hidden + 2 * self.key_values + 3 * self.feed_forward)


def training(a: Assumptions, gpus: int) -> list[str]:
    """GB per GPU by engine: sharded state, activations and gathered parameters."""
    weights, tokens = a.weights, a.pair * a.micro_batch
    activations = tokens * (2 * a.hidden * a.layers + a.saved) / GB
    gathered = (2 * 2 * a.layer + 2 * a.vocabulary * a.hidden) / GB
    fixed = {
        "DDP": 16 * weights / GB,
        "ZeRO-2": (2 * weights + 14 * weights / gpus) / GB,
        "ZeRO-3, FSDP2": 16 * weights / gpus / GB + gathered,
        "DDP with LoRA": 2 * weights / GB,
    }
    return [str(gpus), *(f"{size + activations:.1f}" for size in fixed.values())]


def speed(a: Assumptions, gpus: int, pairs: float) -> list[str]:
    """Tokens per second and the time for ``pairs``; recomputing activations adds a third."""
    rate = gpus * a.training_use * a.peak / (8 * a.body)
    updates = pairs / (gpus * a.micro_batch)
    return [
        str(gpus), f"{rate:,.0f}", f"{pairs * a.pair / rate / 3600:.2f}",
        f"{gpus * a.micro_batch:,}", f"{updates:,.0f}",
    ]


def checkpoints(a: Assumptions, gpus: int) -> list[str]:
    """Seconds to write, hours between failures, Young's interval √(2·C·M), share of time lost."""
    size = 14 * a.weights
    seconds = size / min(a.disk * max(gpus / 8, 1), a.all_disks)
    mean = a.between_failures * 3600 / gpus
    interval = (2 * seconds * mean) ** 0.5
    lost = seconds / interval + interval / 2 / mean
    return [
        str(gpus), f"{size / GB:.0f}", f"{seconds:.1f}", f"{mean / 3600:,.0f}",
        f"{interval / 60:,.0f}", f"{interval / 2 / 60:,.0f}", f"{lost:.2%}",
    ]


def scoring(a: Assumptions, gpus: int, rows: float) -> list[str]:
    """Tokens per row with and without shared prompts, rows and tokens per second, hours, files."""
    rate = gpus * a.scoring_use * a.peak / (2 * a.body)
    shared = a.completion + 1 + (a.prompt - 1) / a.samples
    hours = rows * shared / rate / 3600
    return [
        str(gpus), f"{rate:,.0f}", f"{rate / shared:,.0f}", f"{hours:,.1f}",
        f"{rows * (a.prompt + a.completion) / rate / 3600:,.1f}",
        f"{hours * gpus / a.between_failures:.2f}", f"{2048 / (rate / gpus / shared):.0f}",
    ]


def scoring_memory(a: Assumptions) -> list[str]:
    """GB on a GPU that scores: weights, one layer's activations, cached prompts, their copies."""
    cached = 2 * a.layers * a.key_values * 2
    rows = a.batch_tokens // (1 + a.completion + (a.prompt - 1) // 4)
    parts = [
        2 * a.weights, a.batch_tokens * a.saved, a.batch_tokens * cached,
        rows * (a.prompt + a.completion) * cached,
    ]
    return [f"{part / GB:.1f}" for part in [*parts, sum(parts)]]


def storage(a: Assumptions, rows: float) -> list[str]:
    """TB of input, of output, and GB of one of 1,000 files."""
    size = rows * (a.prompt + a.completion) * a.text
    return [f"{size / 1e12:.2f}", f"{(size + 30 * rows) / 1e12:.2f}", f"{size / 1e3 / GB:.2f}"]


def tables(a: Assumptions, clusters: tuple[int, ...] = (8, 64, 512)) -> dict[str, list[list[str]]]:
    """Tables by name: the heading, then the rows."""
    return {
        "weights": [
            ["per layer, M", "all layers, G", "with embeddings, G", "and a vocabulary head, G"],
            [f"{a.layer / 1e6:.1f}", f"{a.body / 1e9:.2f}", f"{a.weights / 1e9:.2f}",
             f"{(a.weights + a.vocabulary * a.hidden) / 1e9:.2f}"],
        ],
        "training memory": [
            ["GPUs", "DDP", "ZeRO-2", "ZeRO-3, FSDP2", "DDP with LoRA"],
            *(training(a, gpus) for gpus in clusters),
        ],
        "training speed": [
            ["GPUs", "tokens/s", "hours for 1 M pairs", "pairs per update", "updates"],
            *(speed(a, gpus, 1e6) for gpus in clusters),
        ],
        "checkpoints": [
            ["GPUs", "GB", "seconds to write", "hours between failures", "minutes between saves",
             "minutes lost per failure", "share of time lost"],
            *(checkpoints(a, gpus) for gpus in clusters),
        ],
        "scoring": [
            ["GPUs", "tokens/s", "rows/s", "hours", "hours, prompts not shared",
             "failures to expect", "seconds per shard of 2,048"],
            *(scoring(a, gpus, 1e9) for gpus in clusters),
        ],
        "scoring memory": [
            ["weights", "activations", "cached prompts", "their copies", "GB in all"],
            scoring_memory(a),
        ],
        "storage": [["TB read", "TB written", "GB per file of 10⁶ rows"], storage(a, 1e9)],
    }


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in Assumptions().__dict__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    for name, rows in tables(Assumptions(**vars(parser.parse_args()))).items():
        print(f"\n{name}\n", markdown(rows[0], rows[1:]), sep="\n")


if __name__ == "__main__":
    main()
