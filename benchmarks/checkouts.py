"""Decoding by this checkout against another one, for example an older commit, on the same models.

    git worktree add --detach ../before COMMIT
    python -m benchmarks.checkouts ../before [--layers 8 --width 512 --vocabulary 32000]

It prints the CPU time of each method here over that of the other checkout. Both run in processes of
their own and take turns; each needs `benchmarks.decoding`.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import in_turn, spread
from benchmarks.report import markdown

METHODS = (
    "none", "farma", "args", "cards", "best_of_n", "speculative_rejection", "goal_filter", "beam",
)
# What each process runs: a line in is a case, a line out its CPU seconds.
_SIDE = """
import sys, time, torch
from benchmarks.backbones import Backbone
from benchmarks.decoding import HEADS, Bench, Cell
torch.set_num_threads(1)
bench = Bench(Backbone(*map(int, sys.argv[1:])))
for line in sys.stdin:
    method, *sizes = line.split()
    cell, began = Cell(*map(int, sizes)), time.process_time()
    bench.method(method, cell)
    print("took", time.process_time() - began, flush=True)
"""


class Side:
    """A process that decodes with the code of one checkout."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def seconds(self, case: str) -> float:
        """CPU time of a case, ``METHOD PROMPT NEW BATCH``."""
        assert self._process.stdin is not None, "a pipe"
        assert self._process.stdout is not None, "a pipe"
        self._process.stdin.write(case + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("took "):
                return float(line.split()[1])
        raise RuntimeError(f"{self._process.args!r} ended at {case!r}; its errors are above.")


@contextlib.contextmanager
def side(checkout: Path, backbone: Sequence[int]) -> Iterator[Side]:
    """Start the process of a checkout."""
    command = [sys.executable, "-c", _SIDE, *map(str, backbone)]
    environment = os.environ | {
        "PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{checkout}", "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(  # noqa: S603
        command, cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Side(process)
        finally:
            process.kill()


def compare(
    other: Path, backbone: Sequence[int], methods: Sequence[str], *, prompt: int, new: int,
    batch: int, runs: int,
) -> list[dict[str, object]]:
    """A row per method: CPU seconds here and there, and their ratio (above 1: slower here).

    Args:
        other: folder of the other checkout.
        backbone: layers, width and vocabulary of policy and reward model.
        methods: names that both checkouts know.
        prompt: tokens of a prompt.
        new: tokens of a response.
        batch: prompts, decoded together.
        runs: of both sides, after one to warm up.
    """
    here = Path(__file__).parents[1]
    rows: list[dict[str, object]] = []
    with side(here, backbone) as ours, side(other.resolve(), backbone) as theirs:
        for method in methods:
            case = f"{method} {prompt} {new} {batch}"
            sides = [partial(one.seconds, case) for one in (ours, theirs)]
            for one in sides:
                one()
            times = in_turn(sides, runs)
            rows.append({
                "case": method, "ours": statistics.median(mine for mine, _ in times),
                "other": statistics.median(their for _, their in times), "unit": "CPU seconds",
                **spread([mine / their for mine, their in times]),
            })
    return rows


def main() -> None:
    """Print the table, and its rows as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    sizes = {"layers": 8, "width": 512, "vocabulary": 32_000, "prompt": 64, "new": 17, "batch": 8,
             "runs": 3}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    rows = compare(
        given.other, (given.layers, given.width, given.vocabulary), given.methods,
        prompt=given.prompt, new=given.new, batch=given.batch, runs=given.runs,
    )
    print(markdown(rows, "other checkout"))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
