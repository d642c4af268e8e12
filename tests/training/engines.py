"""The same trainings under every engine: what is trained, how it is launched, what came out."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.responses import Responses
from rewardsteer.data.sources import NoSplitError
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.sources.labelled import solution
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

ROOT = Path(__file__).parents[2]
ENGINES = ("ddp", "fsdp2", "fsdp2_offload", "zero2", "zero2_offload", "zero3", "zero3_offload")
# Comparisons an update of all processes together. 25 rows leave a single one for the last update.
TOGETHER, ROWS = 8, 25

SCALAR, VOCABULARY = {"kind": "scalar"}, {"kind": "vocabulary"}
GOAL = {"name": "goal_contrastive", "weight": 0.5, "options": {"positives": 4, "negatives": 3}}
OBJECTIVES = {
    "bradley_terry": (SCALAR, [[{"name": "bradley_terry"}]]),
    "bradley_terry, MLP head": ({**SCALAR, "layers": "mlp"}, [[{"name": "bradley_terry"}]]),
    "partial": (SCALAR, [[{"name": "partial"}]]),
    "goal_contrastive, infonce": (SCALAR, [[{"name": "bradley_terry"}, GOAL]]),
    "goal_contrastive, future": (SCALAR, [[
        {**GOAL, "options": {**GOAL["options"], "form": "future"}},
    ]]),
    "goal_contrastive, published": (SCALAR, [[
        {**GOAL, "options": {**GOAL["options"], "form": "published"}},
    ]]),
    "autoregressive": (VOCABULARY, [[{"name": "autoregressive", "options": {"beta": 0.05}}]]),
    "max_constraint, soft": (VOCABULARY, [[
        {"name": "max_constraint", "options": {"temperature": 0.5}},
    ]]),
    "process": (SCALAR, [[{"name": "process"}]]),
    "regression": (
        {"kind": "attributes", "attributes": ["taste", "length"], "weights": [1.0, 0.5]},
        [[{"name": "regression", "options": {"attributes": ["taste", "length"]}}]],
    ),
    "listwise": (SCALAR, [[{"name": "listwise", "options": {"number": "taste"}}]]),
    "labels": (SCALAR, [[{
        "name": "labels", "options": {"number": "label", "desirable_weight": 2.0},
    }]]),
    "outcome": (SCALAR, [[{"name": "outcome"}]]),
    # The published alternation.
    "bradley_terry | max_constraint": (
        VOCABULARY, [[{"name": "bradley_terry"}], [{"name": "max_constraint"}]],
    ),
}


# Objectives that train on other rows than pairs, and which.
ROWS_OF = {
    "process": "steps", "regression": "numbers", "listwise": "numbers", "labels": "numbers",
    "outcome": "numbers",
}


def numbers(split, *, path=None, reading=None, rows=40):
    """One to four responses to a prompt, some of their numbers not known."""
    if split != "train":
        raise NoSplitError(split)
    for number in range(rows):
        count = number % 4 + 1
        yield Responses(
            id=str(number), prompt=f"say {number}",
            responses=[f"{number}" * (place + 1) for place in range(count)],
            numbers={
                "taste": [None if (number + place) % 5 == 0 else float(place * number % 3)
                          for place in range(count)],
                "length": [float(place) for place in range(count)],
                "label": [float((place + number) % 2) for place in range(count)],
            },
        )


def steps(split, *, path=None, reading=None, rows=40):
    """Solutions of one to three steps with labels."""
    if split != "train":
        raise NoSplitError(split)
    for number in range(rows):
        count = number % 3 + 1
        yield solution(
            f"say {number}", [f"{number}" * (place + 1) for place in range(count)],
            [float((place + number) % 2) for place in range(count)], "", id=str(number),
        )


def make_rows(folder):
    """A tiny base model and prepared rows that are no pairs."""
    save_tiny(folder / "base-rows")
    for name in set(ROWS_OF.values()):
        source = {"name": f"tests.training.engines:{name}"}
        prepare(
            DataConfig(source=source, test_fraction=0.2), character_tokenizer(),
            folder / f"data-{name}",
        )


def make_world(folder, kind="llama", *, rows=60, seed=0):
    """A tiny base model and prepared arithmetic pairs."""
    tokenizer = build_tokenizer()
    tiny_causal_lm(kind, vocab_size=len(tokenizer), seed=seed).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    source = {"name": "arithmetic", "options": {"rows": rows}}
    prepare(
        DataConfig(source=source, prefix_start=0, test_fraction=0.2, drop_overlap=False),
        tokenizer, folder / "data",
    )
    return folder


def settings(world, objective, processes, **changes):
    """Settings of a short training, the same for any number of processes."""
    (head, phases), kind = OBJECTIVES[objective], ROWS_OF.get(objective)
    optimiser = {
        "learning_rate": 3e-4, "per_device_train_batch_size": TOGETHER // processes,
        **changes.pop("optimiser", {}),
    }
    log = {
        "progress": False, "logging_steps": 1, "print_logs": False, "eval_rows": 11,
        **changes.pop("log", {}),
    }
    return {
        "base_model": str(world / ("base-rows" if kind else "base")),
        "prepared": str(world / (f"data-{kind}" if kind else "data")), "head": head,
        "phases": [{"objective": terms, "rows": ROWS} for terms in phases],
        "optimiser": optimiser, "log": log, **changes,
    }


def launch(engine, jobs, folder, warm, processes=2):
    """Run jobs (see `on_cpu`) on several processes with a launch file of the repository."""
    file = folder / f"{engine}-{processes}-jobs.json"
    file.write_text(json.dumps(jobs))
    return launch_module(engine, ["tests.training.on_cpu", str(file)], warm, processes)


def launch_module(engine, arguments, warm=None, processes=2):
    """Run a module with its arguments on several processes, see `launch`.

    Args:
        warm: the folder of warm commands, in whose forks it runs; fresh processes otherwise.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = str(warm / "python") if warm else sys.executable
    command = [
        python, "-m", "accelerate.commands.launch",
        "--config_file", str(ROOT / "launch" / f"{engine}.yaml"),
        "--num_processes", str(processes), "--main_process_port", str(port),
        "-m", *arguments,
    ]
    environment = {
        **os.environ, "ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHON_EXEC": python,  # what torchrun starts
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, f"{engine}: {done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stderr


TIMES = ("runtime", "per_second", "memory", "preparation")


def log_lines(out):
    """metrics.jsonl without what a clock or the machine says."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return [
        {name: value for name, value in line.items() if not any(part in name for part in TIMES)}
        for line in lines
    ]


def distance(first, second):
    """The largest difference of losses, of evaluation figures and of final weights of two runs."""
    ours, theirs = log_lines(first), log_lines(second)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]

    def largest(wanted):
        return max(
            abs(line[name] - other[name]) for line, other in zip(ours, theirs, strict=True)
            for name in line if wanted(name)
        )

    weights, other = (load_file(out / "model" / "model.safetensors") for out in (first, second))
    assert weights.keys() == other.keys()
    return {
        "loss": largest(lambda name: name == "loss"),
        # Ranks of rewards that are nearly equal change places by rounding.
        "evaluation": largest(
            lambda name: name.startswith("eval_") and "spearman" not in name and "auroc" not in name
        ),
        "weights": max((weights[name] - other[name]).abs().max().item() for name in weights),
    }
