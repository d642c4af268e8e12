"""Run one table or all, print it and write ``benchmarks/results/TABLE.json``."""

import json
import platform
import sys
from pathlib import Path

import torch

from benchmarks import constraint, decoding, head, scoring

TABLES = {
    "constraint": constraint.run, "decoding": decoding.run, "head": head.run,
    "scoring": scoring.run,
}


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        sys.exit(f"Unknown table(s) {', '.join(unknown)}; known: {', '.join(TABLES)}.")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in names or TABLES:
        rows = TABLES[name]()
        place = Path(__file__).parent / "results" / f"{name}.json"
        place.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"\n{name}")
        for row in rows:
            print(
                f"  {row['case']:<44} {row['ours']:>10.4g} {row['other']:>10.4g} {row['unit']:<14}"
                f" ratio {row['ratio']:.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
