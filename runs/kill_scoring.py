"""Kill a scoring run at random moments, resume it each time, and compare the output row by row
with that of an uninterrupted run.

    python runs/kill_scoring.py --work out/kills --kills 10 --rows 20000

Scores real completions (18 per question, from ../shared/data or DATA) with a small reward model of
random weights, unless --reward-model and --input name others. Every kill is SIGKILL to the whole
process group. Exits with status 1 if a row differs, is missing or occurs twice.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(os.environ.get("DATA", "../shared/data")) / "completions"
FILES = ("GSM8K_multi.jsonl.gz", "SVAMP_multi.jsonl.gz")


def write_input(place: Path, rows: int) -> None:
    """Write the first rows of prompt and completion, all completions of a question together."""
    from rewardsteer.data.solutions import read_solutions

    found = (one for file in FILES for _, one in read_solutions(DATA / file))
    with place.open("w") as stream:
        for _, solution in zip(range(rows), found, strict=False):
            row = {"prompt": solution.prompt, "completion": solution.completion}
            row |= {"model": solution.model, "style": solution.sample}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def make_model(folder: Path) -> None:
    """Save a reward model with random weights: Llama, 2 layers, width 64."""
    from benchmarks import shapes
    from benchmarks.backbones import Backbone
    from rewardsteer.data.template import Template
    from rewardsteer.models.checkpoint import CheckpointCard
    from rewardsteer.models.heads.config import HeadConfig
    from rewardsteer.models.reward_model import RewardModel

    model = RewardModel(
        Backbone(2, 64, 50_277, heads=4, feed_forward=256).classifier().cpu().eval(), HeadConfig()
    )
    template = Template(prompt="{prompt}\n").model_dump()
    card = CheckpointCard(head=HeadConfig(), template=template)
    model.save_pretrained(folder, shapes.tokenizer(), card)


def compare(ours: Path, theirs: Path) -> tuple[int, int]:
    """Number of rows, and how many of them differ or are in one file only."""
    first, second = (path.read_text().splitlines() for path in (ours, theirs))
    rows = max(len(first), len(second))
    same = sum(one == other for one, other in zip(first, second, strict=False))
    return rows, rows - same


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the run in a process group of its own."""
    return subprocess.Popen(  # noqa: S603
        command, start_new_session=True, stderr=subprocess.PIPE
    )


def finish(command: list[str]) -> float:
    """Complete the run without kills; returns its seconds."""
    began = time.monotonic()
    process = start(command)
    _, log = process.communicate()
    if process.returncode:
        sys.exit(f"The run failed:\n{log.decode()[-2000:]}")
    return time.monotonic() - began


def main() -> None:
    """Run, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reward-model", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=512)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("more", nargs="*", help="further options of 'rewardsteer score', after --")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = options.reward_model or options.work / "model"
    source = options.input or options.work / "rows.jsonl"
    if options.reward_model is None:
        make_model(model)
    if options.input is None:
        write_input(source, options.rows)
    command = [
        sys.executable, "-m", "rewardsteer", "score", "--reward-model", str(model), "--input",
        str(source), "--shard-rows", str(options.shard_rows), *options.more, "--output",
    ]
    whole, output = options.work / "whole.jsonl", options.work / "killed.jsonl"
    seconds = finish([*command, str(whole), "--overwrite"])
    for path in (output, output.with_name(output.name + ".run.json")):
        path.unlink(missing_ok=True)
    disturb(command, output, seconds, options.kills, options.seed)
    finish([*command, str(output), "--resume"])
    rows, wrong = compare(output, whole)
    print(f"{rows} rows after {options.kills} kills: {wrong} differ from the uninterrupted run")
    sys.exit(1 if wrong else 0)


def disturb(command: list[str], output: Path, seconds: float, kills: int, seed: int) -> None:
    """Start the run and kill it at a random moment, ``kills`` times.

    Half of the moments are drawn over the whole length of the run. The other half follow a new
    shard closely, so that some work is done and some is left.
    """
    rng, killed = random.Random(seed), 0
    partial = output.with_name(output.name + ".partial")
    while killed < kills:
        process = start([*command, str(output), "--resume"])
        before, moment, shards = time.monotonic(), rng.uniform(0.05, 1.0) * seconds, count(partial)
        if killed % 2:
            while process.poll() is None and count(partial) == shards:
                time.sleep(0.005)
            moment = time.monotonic() - before + rng.uniform(0.0, seconds / 10)
        while process.poll() is None and time.monotonic() - before < moment:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        shards = count(partial)
        if process.returncode == -signal.SIGKILL:
            print(f"kill {killed}: after {moment:.2f} s, {shards} shards exist", flush=True)
        elif process.returncode == 0:
            print(f"finished before the kill; started again after {killed} kills", flush=True)
            output.unlink()
            output.with_name(output.name + ".run.json").unlink()
        else:
            log = process.stderr.read().decode() if process.stderr else ""
            sys.exit(f"The run failed:\n{log[-2000:]}")


def count(partial: Path) -> int:
    """Number of finished shards."""
    return len(list(partial.glob("[0-9]*.jsonl")))


if __name__ == "__main__":
    main()
