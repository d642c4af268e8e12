"""Draw docs/images/scoring-memory.svg from benchmarks/results/scoring.json."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Plot peak memory against the number of rows in the file."""
    table = json.loads((ROOT / "benchmarks" / "results" / "scoring.json").read_text())
    found = [
        (int(row["case"].split()[2].replace(",", "")), row["ours"])
        for row in table["rows"] if row["case"].startswith("peak memory")
    ]
    figure, axes = pyplot.subplots(figsize=(5, 3))
    axes.plot(*zip(*found, strict=True), marker="o")
    axes.set(xscale="log", xlabel="rows in the file", ylabel="peak memory, MiB")
    axes.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / "scoring-memory.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
