"""How the cost of a pair grows with the length of its responses and with the batch."""

from dataclasses import dataclass

from benchmarks.backbones import Backbone
from benchmarks.bradley_terry import compare
from benchmarks.harness import Row
from benchmarks.shapes import Synthetic, take
from benchmarks.updates import Training


@dataclass(frozen=True)
class Sizes:
    """What the table measures; all rows of a case are equally long.

    Attributes:
        responses, batches: response lengths and batch sizes; one grows while the other is fixed.
        response, batch: the fixed values.
        pairs: number timed in a run; one batch where that is more.
    """

    backbone: Backbone
    prompt: int
    responses: tuple[int, ...]
    batches: tuple[int, ...]
    response: int
    batch: int
    pairs: int
    runs: int


SIZES = Sizes(
    backbone=Backbone(4, 256, 2048), prompt=128, responses=(32, 64, 128, 256, 512, 1024),
    batches=(1, 2, 4, 8, 16, 32), response=64, batch=2, pairs=4, runs=3,
)
SETUP = (
    f"{SIZES.backbone}, prompt {SIZES.prompt}; batch {SIZES.batch} where responses grow, response "
    f"{SIZES.response} where the batch grows. Token counts include the prompt of a pair "
    "twice."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Milliseconds per pair of `fit` and TRL, by response length and by batch size."""
    cases = [(f"response {response}", response, sizes.batch) for response in sizes.responses]
    cases += [(f"batch {batch}", sizes.response, batch) for batch in sizes.batches]
    return [_case(sizes, *case) for case in cases]


def _case(sizes: Sizes, name: str, response: int, batch: int) -> Row:
    shape = Synthetic(name, sizes.prompt, response, deviation=0.0)
    updates = 1 + max(sizes.pairs // batch, 1)
    pairs = take(shape, batch * updates, sizes.backbone.vocabulary)
    row = compare(name, Training(sizes.backbone, pairs, batch), sizes.runs)
    return row | {
        "ours": 1000 / row["ours"], "other": 1000 / row["other"], "unit": "ms/pair",
    }
