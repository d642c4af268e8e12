"""Measure the named tables, or all; print each and write it to the results."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import (
    bradley_terry,
    constraint,
    contrastive,
    decoding,
    engines,
    gpu,
    growth,
    guides,
    head,
    prepare,
    recipes,
    scoring,
    serving,
    shared,
    vllm,
)
from benchmarks.harness import CannotRun
from benchmarks.report import Table, publish

TABLES = {
    "bradley_terry": Table(bradley_terry.run, "TRL", bradley_terry.SETUP),
    "growth": Table(growth.run, "TRL", growth.SETUP),
    "prepare": Table(prepare.run, "TRL", prepare.SETUP),
    "recipes": Table(recipes.run, "other", recipes.SETUP),
    "constraint": Table(constraint.run, "sequence per prefix", constraint.SETUP),
    "head": Table(head.run, "all logits", head.SETUP),
    "contrastive": Table(contrastive.run, "bradley_terry alone", contrastive.SETUP),
    "decoding": Table(decoding.run, "generate", decoding.SETUP),
    "guides": Table(guides.run, "full guidance", guides.SETUP),
    "shared": Table(shared.run, "two models", shared.SETUP),
    "scoring": Table(scoring.run, "other", scoring.SETUP),
    "serving": Table(serving.run, "1 place", serving.SETUP),
    "vllm": Table(vllm.run, "other", vllm.SETUP),
    "engines": Table(engines.run, "policy alone", engines.SETUP),
    "gpu": Table(gpu.run, "TRL", gpu.SETUP),
}


def main(names: Sequence[str], folder: Path, tables: Mapping[str, Table] = TABLES) -> None:
    """Measure tables in order; one that cannot be measured here keeps its earlier results."""
    unknown = sorted(set(names) - set(tables))
    if unknown:
        sys.exit(f"Unknown table(s) {', '.join(unknown)}; known: {', '.join(tables)}.")
    for name in names or tables:
        try:
            rows = tables[name].run()
        except CannotRun as reason:
            print(f"\n{name}: {reason}")
            continue
        print(f"\n{name}\n\n{publish(name, tables[name], rows, folder)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:], Path(__file__).parent)
