"""Write the tables of README.md and of pages of docs/ from the files with their results.

    python runs/readme_tables.py             updates the pages
    python runs/readme_tables.py --check     exits with 1 where a page differs

A table is a row of `TABLES`: its name, the file or folder that it is made from, and a function
that makes the text. Its position in a page is between ``<!-- table: NAME -->`` and
``<!-- end -->``. A file that does not exist yet leaves the position empty. The files of the two
studies on SmolLM2 are made by

    python runs/keep_figures.py OUT/seed-0/generation runs/results/smollm2_guidance/seed-0   # …
    rewardsteer evaluate runs runs/results/smollm2_guidance/seed-* \\
        --out runs/results/smollm2_guidance.json
    python runs/smollm2_accuracy.py OUT runs/results/smollm2_guidance.json
    python runs/summarise_goal.py OUT baseline goal published \\
        --write runs/results/smollm2_solutions.json
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import arithmetic_tables
import yaml
from smollm2_tables import Content, compact, guidance, guidance_all, solutions, solutions_short

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md"
      for name in ("choosing", "recipes", "results", "results_guides")),
)
END = "<!-- end -->"


def process(found: Content) -> str:
    """How well reward models find the first incorrect step, from runs/process.py."""
    shown = {
        "process reward": "process reward", "partial reward, change": "partial reward (PARGS)",
        "goal similarity, change": "goal similarity",
        "Bradley-Terry reward, change": "Bradley-Terry reward", "control: length": "*length alone*",
    }
    rows = [
        [name, *(
            f"{value:.3f} ({low:.3f}–{high:.3f})"
            for value, low, high in (found["figures"][key][way] for way in ("within", "against"))
        )]
        for key, name in shown.items()
    ]
    return (
        f"`python runs/process.py DATA OUT`: AUROC of the first incorrect step of "
        f"{found['solutions']} altered MATH solutions ({found['held_out']} held-out problems of "
        f"PRMBench), {found['base']} cut to {found['layers']} layers, one seed; 95 % intervals "
        "over problems; change of a value from the step before.\n\n"
        + compact(["value", "against earlier steps", "against the correct step"], rows)
    )


def cost(tables: Content) -> str:
    """Five ratios measured by ``make bench``, with their cases and what ours is compared with."""
    shown = [
        ("bradley_terry", "TL;DR shape (prompt 350, response 35)",
         "Bradley-Terry training, pairs per second", "TRL's RewardTrainer", "ratio"),
        ("bradley_terry", "peak memory of training, TL;DR shape (prompt 350, response 35)",
         "the same, peak memory", "TRL's RewardTrainer", "inverse"),
        ("constraint", "TL;DR shape (prompt 350, response 35): sequence per prefix, all logits",
         "maximum constraint, prefixes per second", "one sequence per prefix, as published",
         "ratio"),
        ("decoding", "farma, prompt 350, 64 new, batch 8",
         "FaRMA, time per token", "forward passes of both models alone", "time over floor"),
        ("vllm", "256 requests: guided vLLM against both models alone",
         "FaRMA in vLLM, 256 requests, tokens per second", "vLLM with both models alone", "ratio"),
    ]
    rows = []
    for table, case, what, other, key in shown:
        row = next(one for one in tables[table]["rows"] if one["case"] == case)
        value = 1 / row["ratio"] if key == "inverse" else row[key]
        rows.append([what, other, f"{value:.2f}×"])
    return "`make bench`, 2 CPU cores, small models ([all tables](benchmarks/RESULTS.md)).\n\n" + (
        compact(["measured", "against", "ratio"], rows)
    )


def recipes(folder: Path) -> str:
    """Every shipped recipe with its main settings, from the YAML files."""
    rows = []
    for file in sorted(folder.rglob("*.yaml")):
        own = yaml.safe_load(file.read_text())
        optimiser, head = own.get("optimiser", {}), own.get("head", {})
        batch = optimiser.get("per_device_train_batch_size", 8) * optimiser.get(
            "gradient_accumulation_steps", 1)
        data = own.get("data") or {}
        rows.append([
            f"`{file.relative_to(folder).with_suffix('')}`", str(own.get("base_model", "–")),
            head.get("kind", "scalar"), str(data.get("max_length", "–")), str(batch),
            f"{float(optimiser['learning_rate']):.0e}",
            f"{optimiser.get('num_train_epochs', 1)}"
            + (f" × {own['rounds']} rounds" if "rounds" in own else ""),
        ])
    return compact([
        "recipe", "base model", "head", "longest row (tokens)",
        "comparisons per update and device", "learning rate", "epochs",
    ], rows)


def recipe_costs(found: Content) -> str:
    """Time and memory of the recipes for a user's own rows, from ``make bench TABLE=recipes``."""
    rows = [
        [f"`{row['case']}`", str(row["phases"]), f"{row['ours']:.1f}",
         f"{row['peak memory, MiB'] / 1024:.1f}"]
        for row in found["rows"]
    ]
    machine = found["machine"]
    return (
        f"`{found['command']}`, {found['date']}, {machine['cpu']}, {machine['threads']} thread, "
        f"torch {machine['versions']['torch']}. {found['setup']}\n\n"
        + compact(["recipe", "phases", "CPU seconds per update", "peak memory (GiB)"], rows)
    )


def _json(build: Callable[[Content], str]) -> Callable[[Path], str]:
    """Turn a function of JSON content into one of a path: a file, or a folder's files by name."""
    def read(place: Path) -> str:
        if place.is_dir():
            return build({one.stem: json.loads(one.read_text()) for one in place.glob("*.json")})
        return build(json.loads(place.read_text()))
    return read


# Name → the file or folder, and the function that makes its text.
TABLES: dict[str, tuple[Path, Callable[[Path], str]]] = {
    "guidance": (ROOT / "runs/results/smollm2_guidance.json", _json(guidance)),
    "guidance_all": (ROOT / "runs/results/smollm2_guidance.json", _json(guidance_all)),
    "solutions": (ROOT / "runs/results/smollm2_solutions.json", _json(solutions)),
    "solutions_short": (ROOT / "runs/results/smollm2_solutions.json", _json(solutions_short)),
    "arithmetic_guides": (ROOT / "runs/results/arithmetic", arithmetic_tables.guides),
    "arithmetic_gates": (ROOT / "runs/results/arithmetic", arithmetic_tables.gates),
    "review_guides": (ROOT / "runs/results/reviews", arithmetic_tables.review_guides),
    "reviews_short": (ROOT / "runs/results/reviews", arithmetic_tables.reviews_short),
    "review_gates": (ROOT / "runs/results/reviews", arithmetic_tables.review_gates),
    "arithmetic_rankers": (ROOT / "runs/results/arithmetic", arithmetic_tables.rankers),
    "process": (ROOT / "runs/results/process.json", _json(process)),
    "cost": (ROOT / "benchmarks/results", _json(cost)),
    "recipes": (ROOT / "src/rewardsteer/recipes", recipes),
    "recipe_costs": (ROOT / "benchmarks/results/recipes.json", _json(recipe_costs)),
}


def written(text: str) -> str:
    """A page's text with the current table between each pair of markers.

    Raises:
        ValueError: a marker names no table, or is not closed.
    """
    head, *parts = text.split("<!-- table: ")
    for at, part in enumerate(parts):
        name, _, rest = part.partition(" -->")
        _, closed, after = rest.partition(END)
        if name not in TABLES or not closed:
            raise ValueError(f"Expected a table of {', '.join(TABLES)}, closed by {END}: {name}.")
        place, build = TABLES[name]
        block = f"\n{build(place)}" if place.exists() else ""
        parts[at] = f"{name} -->{block}\n{END}{after}"
    return "<!-- table: ".join([head, *parts])


def main() -> None:
    """Update the pages, or compare them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Only check: write nothing.")
    check = parser.parse_args().check
    for page in PAGES:
        old = page.read_text()
        new = written(old)
        if check and new != old:
            sys.exit(f"{page.name} differs from its files; run: python runs/readme_tables.py")
        if not check:
            page.write_text(new)


if __name__ == "__main__":
    main()
