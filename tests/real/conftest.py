"""SmolLM2-135M-Instruct, a few rows and the models trained on them, made once for all tests."""

import json
import os
import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from runs.smollm2 import default_folder

PROMPTS = [
    "What is the capital of France?",
    "Name a colour.",
    "What is 2 plus 3?",
    "Write one short sentence about rain.",
]


def rewardsteer(*words):
    """A command in this process; its output. A failure shows what the command printed."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def smollm2():
    """The model's folder."""
    folder = default_folder("bfloat16")
    if not (folder / "config.json").exists():
        pytest.skip("the real model is not here; 'make smollm2 DTYPE=bfloat16' makes it")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return folder


@pytest.fixture(scope="session")
def root(smollm2, tmp_path_factory):
    """A folder with preference pairs in TRL's conversational form, prompts and prepared data."""
    root = tmp_path_factory.mktemp("real")
    draw = random.Random(0)
    pairs = []
    for number in range(40):
        a, b = 2 + number % 8, 2 + number // 8
        wrong = a + b + draw.choice([-1, 1, 2])
        pairs.append({
            "id": str(number),
            "prompt": [{"role": "user", "content": f"What is {a} plus {b}?"}],
            "chosen": [{"role": "assistant", "content": f"{a} plus {b} is {a + b}."}],
            "rejected": [{"role": "assistant", "content": f"{a} plus {b} is {wrong}."}],
        })
    write_lines(root / "pairs.jsonl", pairs)
    write_lines(root / "prompts.jsonl", [
        {"id": str(number), "prompt": [{"role": "user", "content": text}]}
        for number, text in enumerate(PROMPTS)
    ])
    rewardsteer(
        "data", "prepare", "pairs", "--path", root / "pairs.jsonl", "--tokenizer", smollm2,
        "--out", root / "data", "prefix_start=0",
    )
    return root


class Trained:
    """Reward models by recipe and way of training, each trained when it is first asked for.

    Bradley-Terry with all weights has the whole model as its base, the others its first layers.
    """

    def __init__(self, root, whole, short):
        self.root, self.whole, self.short, self.models = root, whole, short, {}

    def base(self, recipe, how):
        return self.whole if (recipe, how) == ("bt", "whole") else self.short

    def __call__(self, recipe, how):
        key = f"{recipe}-{how}"
        if key not in self.models:
            out = self.root / key
            lora = ["lora.rank=8"] if how == "lora" else []
            once = ["rounds=1", "last_phase=null"] if recipe == "farma" else []
            rewardsteer(
                "train", f"pairs/{recipe}", f"base_model={self.base(recipe, how)}",
                f"prepared={self.root / 'data'}", "optimiser.per_device_train_batch_size=4",
                "optimiser.max_steps=2",
                f"optimiser.learning_rate={2e-3 if lora else 1e-4}", "log.logging_steps=1",
                "log.eval_rows=4", "optimiser.gradient_checkpointing=false", *lora, *once,
                "--out", out,
            )
            self.models[key] = out / "model"
        return self.models[key]


def first_layers(model, layers, folder, dtype="auto"):
    """A folder with the first layers of a model."""
    short = AutoModelForCausalLM.from_pretrained(model, num_hidden_layers=layers, dtype=dtype)
    short.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(root, smollm2, tmp_path_factory):
    """`Trained`: ``trained("bt", "whole")`` is a model folder."""
    return Trained(root, smollm2, first_layers(smollm2, 6, tmp_path_factory.mktemp("short")))
