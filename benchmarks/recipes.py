"""Training by the recipes for a user's own rows: time per update and peak memory of each.

A recipe is measured on generated rows in a separate process (forked, so that libraries are imported
once). Time is processor time, which hardly depends on other load on the machine. Where
RECIPES_PARTS names a folder, each measurement is kept there, and an interrupted run goes on from
it. RECIPES_MODEL names another base model.
"""

import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.harness import CannotRun, Row, device
from rewardsteer.configuration import load_config
from rewardsteer.outputs import read_json, write_json
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.recipes import OWN_ROWS, list_recipes, own_source, read_recipe
from rewardsteer.training.run import train
from runs.smollm2 import default_folder

MODEL = default_folder("float32", 8)
_WORDS = ("river", "boat", "light", "people", "spring", "wide", "cold", "home", "after", "dark")
_ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True)
class Sizes:
    """What the table measures.

    Attributes:
        batch: rows per update.
        updates: number per phase; the first one is not timed.
        prompt, response: lengths of the generated texts in words.
    """

    batch: int
    updates: int
    prompt: int
    response: int


SIZES = Sizes(batch=2, updates=2, prompt=20, response=40)
SETUP = (
    "Base model: the first 8 layers of SmolLM2-135M-Instruct, float32 (`python runs/smollm2.py "
    f"--dtype float32 --layers 8`). {SIZES.batch} rows per batch; prompts of {SIZES.prompt} and "
    f"responses of {SIZES.response} words, the chat template's not counted; all other settings are "
    "the recipe's. Time: processor time, mean over the phases, without the first step of each. "
    "Memory: peak of the process, with libraries."
)


def names() -> list[str]:
    """The recipes that are measured."""
    return [name for name in list_recipes() if name.partition("/")[0] in OWN_ROWS]


def run(sizes: Sizes = SIZES) -> list[Row]:
    """A row for each recipe."""
    model = Path(os.environ.get("RECIPES_MODEL", MODEL))
    if device() != "cpu":
        raise CannotRun("This table counts processor time; run it on a machine without a GPU.")
    if not model.exists():
        raise CannotRun(
            f"There is no base model at {model}; make it with: python runs/smollm2.py --dtype "
            "float32 --layers 8"
        )
    parts = os.environ.get("RECIPES_PARTS")
    rows = []
    for name in names():
        kept = Path(parts) / f"{name.replace('/', '-')}.json" if parts else None
        if kept is not None and kept.exists():
            rows.append(read_json(kept))
            continue
        with multiprocessing.get_context("fork").Pool(1) as pool:
            rows.append(pool.apply(measure, (name, model, sizes)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, rows[-1])
    return rows


@dataclass
class _Clock(TrainerCallback):
    """A callback that takes the processor seconds of each update, by phase."""

    phases: list[list[float]] = field(default_factory=list)
    began: float = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.phases.append([])

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.phases[-1].append(time.process_time() - self.began)

    def update(self) -> float:
        """Seconds per update: mean over phases, without the first update of each."""
        return sum(sum(one[1:]) / len(one[1:]) for one in self.phases) / len(self.phases)


def measure(name: str, model: Path, sizes: Sizes) -> Row:
    """The row of one recipe."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = read_recipe(name)
        file = Path(folder) / "rows.jsonl"
        source = own_source(settings, str(file))
        # More rows than the updates need, since some are held out.
        count = 2 * sizes.batch * sizes.updates
        rows = [ROWS[source["name"]](random.Random(row), sizes) for row in range(count)]
        write_rows(file, rows)
        settings["data"] = {**settings["data"], "sources": [source]}
        config = load_config(TrainConfig, settings, [
            f"base_model={model}", f"optimiser.max_steps={sizes.updates}",
            "optimiser.precision=fp32",
            f"optimiser.per_device_train_batch_size={sizes.batch}", "data.test_fraction=0.2",
            "data.prefix_start=0", "data.num_proc=1", "log.save_steps=0", "log.progress=false",
            "log.print_logs=false", "log.eval_rows=1",
        ])
        train(config, Path(folder) / "out", callbacks=[clock])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "case": name, "ours": clock.update(), "unit": "CPU s per update",
        "phases": len(clock.phases), "peak memory, MiB": peak,
    }


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _text(draw: random.Random, count: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(count))


def _pair(draw: random.Random, sizes: Sizes) -> Row:
    return {
        "prompt": _text(draw, sizes.prompt), "chosen": _text(draw, sizes.response),
        "rejected": _text(draw, sizes.response),
    }


def _rated(draw: random.Random, sizes: Sizes) -> Row:
    return {
        "prompt": _text(draw, sizes.prompt), "response": _text(draw, sizes.response),
        "rating": draw.random(), **{name: draw.randrange(5) for name in _ASPECTS},
    }


def _ranked(draw: random.Random, sizes: Sizes) -> Row:
    return {
        "prompt": _text(draw, sizes.prompt), "scores": [2, 1],
        "responses": [_text(draw, sizes.response) for _ in range(2)],
    }


def _labelled(draw: random.Random, sizes: Sizes) -> Row:
    return {
        "prompt": _text(draw, sizes.prompt), "completion": _text(draw, sizes.response),
        "label": draw.random() < 0.5,
    }


def _stepwise(draw: random.Random, sizes: Sizes) -> Row:
    return {
        "prompt": _text(draw, sizes.prompt), "labels": [True, draw.random() < 0.5],
        "completions": [_text(draw, sizes.response // 2) for _ in range(2)],
    }


# Data source → a function that makes one row in its format.
ROWS: dict[str, Callable[[random.Random, Sizes], Row]] = {
    "pairs": _pair, "ratings": _rated, "ranked": _ranked, "labels": _labelled,
    "stepwise": _stepwise,
}
