"""Kill a training run at random moments, resume it, and compare the weights bit by bit.

    python runs/kill_training.py [--kills 10] [--seed 0] [--work DIR]

Runs `rewardsteer train` (FaRMA's alternation on arithmetic pairs, a tiny model, CPU, float32) once
without interruption. Then starts it again, sends SIGKILL at a random moment, starts the same
command with --resume, and so on; the last start runs to its end. Compares final weights and logs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from tests.training.engines import log_lines, make_world  # noqa: E402

SETTINGS = [
    "rounds=2", "phases.0.rows=null", "phases.1.rows=null",
    "optimiser.per_device_train_batch_size=2",
    "optimiser.gradient_accumulation_steps=2", "optimiser.num_train_epochs=2",
    "optimiser.learning_rate=1e-3",
    "log.logging_steps=3", "log.save_steps=2", "log.progress=false", "log.print_logs=false",
    # The prepared data has a template of its own.
    "data=null",
]


def command(world: Path, out: Path) -> list[str]:
    """The command of the training run, the same at each start."""
    return [
        sys.executable, "-m", "rewardsteer", "train", "arithmetic/farma",
        f"base_model={world / 'base'}", f"prepared={world / 'data'}", *SETTINGS, "--out", str(out),
    ]


def updates(out: Path) -> str:
    """The newest checkpoint of a run."""
    found = sorted(out.glob("phases/*/checkpoint-*"), key=lambda place: place.stat().st_mtime)
    return str(found[-1].relative_to(out / "phases")) if found else "no checkpoint yet"


def main() -> None:
    """The console command; exit status 1 where the two runs differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out/kill-training"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    world, draw = make_world(options.work / "world"), random.Random(options.seed)
    whole, cut = options.work / "whole", options.work / "cut"
    subprocess.run(command(world, whole), check=True)  # noqa: S603
    trained = (whole / "model").stat().st_mtime - (whole / "run.json").stat().st_mtime
    print(f"no kills: {trained:.1f} s between the first written file and the model", flush=True)
    killed = 0
    while True:
        process = subprocess.Popen([*command(world, cut), "--resume"])  # noqa: S603
        if killed < options.kills:
            # The moment is drawn from the start of training: imports take longer than training.
            begun, before = time.time(), (cut / "run.json").exists()
            while process.poll() is None and not _has_begun(cut, begun, before):
                time.sleep(0.02)
            try:
                process.wait(timeout=draw.uniform(0.0, trained / options.kills))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                print(f"killed {killed} times, newest checkpoint {updates(cut)}", flush=True)
                continue
        if process.wait() != 0:
            sys.exit(f"the resumed run failed with status {process.returncode}")
        break
    weights, other = (load_file(out / "model" / "model.safetensors") for out in (whole, cut))
    same_weights = weights.keys() == other.keys() and all(
        torch.equal(weights[name], other[name]) for name in weights
    )
    same_log = log_lines(whole) == log_lines(cut)
    result = {"kills": killed, "same_weights": same_weights, "same_log": same_log,
              "log_lines": len(log_lines(whole))}
    print(json.dumps(result))
    sys.exit(0 if same_weights and same_log and killed == options.kills else 1)


def _has_begun(out: Path, since: float, resumed: bool) -> bool:
    """Whether the started process has begun to train."""
    log = out / "metrics.jsonl"
    if not resumed:
        return (out / "phases").exists()
    return log.exists() and log.stat().st_mtime > since


if __name__ == "__main__":
    main()
