"""Compare training on two processes with training on one, by engine and objective.

    python runs/distributed_equality.py [--work DIR] [ENGINE …]

Trains tiny models on the CPU (gloo, float32) on the same rows, and writes the differences into the
table of docs/distributed.md. Models that are already in the work folder are not trained again.
"""

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rewardsteer.outputs import write_text  # noqa: E402
from rewardsteer.reports.tables import markdown  # noqa: E402
from rewardsteer.training.config import TrainConfig  # noqa: E402
from rewardsteer.training.run import train  # noqa: E402
from tests.training.engines import (  # noqa: E402
    ENGINES,
    OBJECTIVES,
    distance,
    launch,
    make_world,
    settings,
)

PAGE = ROOT / "docs" / "distributed.md"
BEGIN, END = "<!-- equality: begin -->\n", "<!-- equality: end -->\n"


def slug(name: str) -> str:
    """A folder name for an objective."""
    return name.replace(" ", "").replace(",", "-").replace("|", "-")


def run_all(work: Path, engines: list[str]) -> None:
    """Train with every objective, in this process and by one launch of each engine."""
    world = work / "world"
    if not world.exists():
        make_world(world)
    for name in OBJECTIVES:
        out = work / "single" / slug(name)
        if not (out / "model").exists():
            shutil.rmtree(out, ignore_errors=True)
            train(TrainConfig.model_validate(settings(world, name, 1)), out)
    for engine in engines:
        jobs = []
        for name in OBJECTIVES:
            out = work / engine / slug(name)
            if not (out / "model").exists():
                shutil.rmtree(out, ignore_errors=True)
                jobs.append({"config": settings(world, name, 2), "out": str(out)})
        if jobs:
            print(f"{engine}: {len(jobs)} training runs", flush=True)
            launch(engine, jobs, work)


def table(work: Path, engines: list[str]) -> str:
    """Largest differences of logged losses and of final weights, one row per objective."""
    lines = []
    for name in OBJECTIVES:
        cells = []
        for engine in engines:
            found = distance(work / "single" / slug(name), work / engine / slug(name))
            mark = "" if max(found.values()) <= 1e-5 else " **not equal**"
            cells.append(f"{found['loss']:.0e} / {found['weights']:.0e}{mark}")
        lines.append([name.replace("|", "then"), *cells])
    return markdown(["objective", *engines], lines) + "\n"


def main() -> None:
    """The console command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=list(ENGINES))
    parser.add_argument("--work", type=Path, default=Path("out/distributed-equality"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run_all(options.work, options.engines)
    made = table(options.work, options.engines)
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    write_text(PAGE, before + BEGIN + made + END + rest.split(END)[1])
    print(made)


if __name__ == "__main__":
    main()
