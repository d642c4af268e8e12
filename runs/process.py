"""Compare a process reward model with goal similarity and partial rewards, on held-out steps.

    python runs/process.py DATA OUT [--base MODEL] [--layers N] [--problems N] [--seed N]

DATA: a folder of PRMBench's classes (circular.jsonl.gz, …). Each problem has a correct solution and
altered ones, whose incorrect steps are known. Problems are divided once into training and held-out
ones. Three reward models start from the same base and get the same texts in as many updates:

    process   a correct and an altered solution of each problem, every step labelled
    partial   the two as a pair, all prefixes of equal length compared (PARGS)
    goal      the two as a pair, Bradley-Terry with the contrastive loss; a goal state

Each then gives a value at the end of each step of held-out altered solutions. The AUROC of these
values answers two questions: is the value of the first incorrect step lower than those of the steps
before it, and is it lower than that of the step at the same position of the correct solution?
Controls: random values, the position and the length of the step. Intervals: 95 %, bootstrap over
problems.

Every stage writes a file to OUT and is not repeated. Writes OUT/result.json and OUT/table.md.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from smollm2 import keep_layers

from rewardsteer.data.sources.files import read_file
from rewardsteer.data.step_tokens import step_lengths
from rewardsteer.evaluation.statistics import auroc_difference, auroc_interval
from rewardsteer.goals.build import build_goals
from rewardsteer.goals.config import GoalConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.outputs import read_json, write_json, write_text
from rewardsteer.quiet import quiet_libraries
from rewardsteer.reports.tables import markdown
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train

CLASSES = (
    "circular", "confidence", "counterfactual", "deception", "domain_inconsistency",
    "missing_condition", "redundency", "step_contradiction",
)
OBJECTIVES = {
    "process": [{"name": "process"}],
    "partial": [{"name": "partial"}],
    "goal": [{"name": "bradley_terry"}, {"name": "goal_contrastive", "weight": 0.25}],
}
SEPARATOR = "\n\n"
# Longest solution, in characters, and altered solutions of a held-out problem.
LONGEST, ALTERED = 1100, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--layers", type=int, default=8, help="number of layers that are kept")
    parser.add_argument("--problems", type=int, default=320, help="number of training problems")
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    quiet_libraries()
    out = arguments.out
    base = cut_base(arguments.base, arguments.layers, out / "base")
    held_out = write_rows(arguments, out / "rows")
    values: dict[str, list[list[float]]] = {}
    for name, objective in OBJECTIVES.items():
        place = out / name / "model"
        if not place.exists():
            config = settings(base, objective, out / "rows", arguments.seed)
            train(config, out / name, resume=(out / name).exists())
        values |= read_values(name, place, held_out, out)
    figures = measure(held_out, values | controls(held_out, arguments.seed))
    write_json(out / "result.json", {
        "base": Path(str(arguments.base)).name, "layers": arguments.layers,
        "problems": arguments.problems, "held_out": arguments.held_out, "seed": arguments.seed,
        "solutions": len(held_out), "figures": figures,
    })
    write_text(out / "table.md", table(figures))
    print(table(figures))


def cut_base(source: str, layers: int, place: Path) -> Path:
    """The folder of a pretrained model's first layers, which train in minutes on a CPU."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not place.exists():
        model: Any = AutoModelForCausalLM.from_pretrained(source)
        keep_layers(model, layers)
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(source).save_pretrained(place)
    return place


def write_rows(arguments: argparse.Namespace, place: Path) -> list[dict[str, Any]]:
    """Write training rows as pairs and as steps; returns the held-out altered solutions."""
    if not (place / "held_out.json").exists():
        problems = list(read_problems(arguments.data).values())
        random.Random(arguments.seed).shuffle(problems)
        training = problems[: arguments.problems]
        # Evaluated during training; the figures come from other problems.
        watched = problems[arguments.problems :][:24]
        testing = problems[arguments.problems + 24 :][: arguments.held_out]
        rng = random.Random(arguments.seed)
        for split, some in (("train", training), ("test", watched)):
            chosen = [rng.choice(altered) for altered in some]
            write_lines(place / "pairs" / f"{split}.jsonl", [as_pair(one) for one in chosen])
            write_lines(place / "steps" / f"{split}.jsonl", [
                row for one in chosen for row in as_steps(one)
            ])
        write_json(place / "held_out.json", [
            one for altered in testing for one in rng.sample(altered, min(ALTERED, len(altered)))
        ])
    found: list[dict[str, Any]] = read_json(place / "held_out.json")
    return found


def read_problems(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Altered solutions by problem, only those that equal the correct one up to the first incorrect
    step and where the correct one has a step at that position."""
    problems = defaultdict(list)
    for name in CLASSES:
        for _, row in read_file(data / f"{name}.jsonl.gz"):
            correct, altered = row["original_process"], row["modified_process"]
            wrong = sorted(step - 1 for step in row["error_steps"] if step <= len(altered))
            texts = SEPARATOR.join(correct), SEPARATOR.join(altered)
            if not wrong or wrong[0] >= len(correct) or max(map(len, texts)) > LONGEST:
                continue
            if row["original_question"] != row["modified_question"]:
                continue
            if correct[: wrong[0]] != altered[: wrong[0]] or "" in (*correct, *altered):
                continue
            problems[row["original_question"]].append({
                "problem": row["original_question"], "class": name, "correct": correct,
                "altered": altered, "wrong": wrong,
            })
    return dict(sorted(problems.items()))


def as_pair(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": row["problem"], "chosen": SEPARATOR.join(row["correct"]),
        "rejected": SEPARATOR.join(row["altered"]),
    }


def as_steps(row: dict[str, Any]) -> list[dict[str, Any]]:
    labels = [step not in row["wrong"] for step in range(len(row["altered"]))]
    return [
        {"prompt": row["problem"], "completions": row["correct"],
         "labels": [True] * len(row["correct"])},
        {"prompt": row["problem"], "completions": row["altered"], "labels": labels},
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def settings(base: Path, objective: list[dict[str, Any]], rows: Path, seed: int) -> TrainConfig:
    """Training settings with the same number of updates and texts for each objective."""
    steps = objective[0]["name"] == "process"
    source = {"name": "stepwise" if steps else "pairs",
              "path": str(rows / ("steps" if steps else "pairs"))}
    return TrainConfig.model_validate({
        "base_model": str(base), "head": {"kind": "scalar"}, "seed": seed,
        "data": {
            "source": source, "max_length": 1024, "prefix_start": 0, "prefix_count": 64,
            "template": {"kind": "auto"},
        },
        "phases": [{"objective": objective}],
        "optimiser": {
            "learning_rate": 1e-4, "per_device_train_batch_size": 8 if steps else 4,
            "num_train_epochs": 1, "lr_scheduler_type": "cosine", "warmup_steps": 0.05,
            "precision": "bf16",
        },
        "log": {"progress": False, "logging_steps": 10, "save_steps": 20},
    })


def read_values(
    name: str, place: Path, rows: list[dict[str, Any]], out: Path
) -> dict[str, list[list[float]]]:
    """A model's values at the step ends of each altered solution; the last value is that of the
    correct solution's step at the position of the first incorrect one."""
    file = out / "values" / f"{name}.json"
    if not file.exists():
        scorer: Any = load_scorer(place, device="cpu")
        prompts = [row["problem"] for row in rows for _ in range(2)]
        steps = [one for row in rows for one in (row["altered"], row["correct"])]
        found: dict[str, list[np.ndarray]] = {}
        if name == "process":
            found["process reward"] = scorer.step_scores(prompts, steps, batch_size=4)
        else:
            goal = None
            if name == "goal":
                goal = build_goals(
                    scorer, out / "goal" / "data", GoalConfig(), out / "goal" / "work"
                )["preferred"]
            rewards, similarities = at_ends(scorer, prompts, steps, goal)
            found["partial reward" if name == "partial" else "Bradley-Terry reward"] = rewards
            if goal is not None:
                found["goal similarity"] = similarities
        kept = {
            key: [
                [*one.tolist(), float(other[row["wrong"][0]])]
                for row, one, other in zip(rows, own[::2], own[1::2], strict=True)
            ]
            for key, own in found.items()
        }
        write_json(file, kept)
    values: dict[str, list[list[float]]] = read_json(file)
    return values


def at_ends(
    scorer: Any, prompts: list[str], steps: list[list[str]], goal: Any
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rewards and similarities at the last token of each step, as in training on steps."""
    texts = [SEPARATOR.join(one) for one in steps]
    prompt_ids, response_ids = scorer.encode(prompts, texts)
    read = scorer.token_scores_ids(prompt_ids, response_ids, batch_size=4, goal=goal)
    rewards, similarities = [], []
    for text, own, ids, one in zip(texts, steps, response_ids, read, strict=True):
        ends, at = [], 0
        for step in own:
            at = min(at + len(step) + len(SEPARATOR), len(text))
            ends.append(at)
        places = np.array(step_lengths(text, ends, ids, scorer.tokenizer)) - 1
        rewards.append(one.rewards[places])
        similarities.append(one.rewards if goal is None else one.similarities[places])
    return rewards, similarities


def controls(rows: list[dict[str, Any]], seed: int) -> dict[str, list[list[float]]]:
    """Control values that ignore a step's text; as for the models, higher is more correct."""
    rng = np.random.default_rng(seed)

    def lengths(row: dict[str, Any]) -> list[float]:
        counterpart = row["correct"][row["wrong"][0]]
        return [-float(len(step)) for step in [*row["altered"], counterpart]]

    return {
        "control: random": [rng.random(len(row["altered"]) + 1).tolist() for row in rows],
        "control: place": [
            [*(-float(at) for at in range(len(row["altered"]))), -float(row["wrong"][0])]
            for row in rows
        ],
        "control: length": [lengths(row) for row in rows],
    }


def measure(
    rows: list[dict[str, Any]], values: dict[str, list[list[float]]]
) -> dict[str, dict[str, list[float]]]:
    """AUROC with its interval of each value and of its change from the step before, and the process
    reward's AUROC minus each of them."""
    every = {}
    for name, own in values.items():
        every[name] = own
        if not name.startswith("control") and name != "process reward":
            every[f"{name}, change"] = [
                changes(one, row["wrong"][0]) for row, one in zip(rows, own, strict=True)
            ]
    return {name: areas(rows, own, values["process reward"]) for name, own in every.items()}


def changes(values: list[float], first: int) -> list[float]:
    """Each step's value minus that of the step before, which is 0 for the first step."""
    before = [0.0, *values[:-2]]
    return [
        *(value - other for value, other in zip(values[:-1], before, strict=True)),
        values[-1] - before[first],
    ]


def areas(
    rows: list[dict[str, Any]], values: list[list[float]], process: list[list[float]]
) -> dict[str, list[float]]:
    within: list[tuple[bool, float, float, str]] = []
    against: list[tuple[bool, float, float, str]] = []
    for row, own, other in zip(rows, values, process, strict=True):
        first, problem = row["wrong"][0], row["problem"]
        within += [(at == first, -own[at], -other[at], problem) for at in range(first + 1)]
        against += [
            (True, -own[first], -other[first], problem), (False, -own[-1], -other[-1], problem),
        ]
    found = {}
    for name, some in (("within", within), ("against", against)):
        labels, scores, others, groups = zip(*some, strict=True)
        found[name] = list(auroc_interval(labels, scores, groups=groups))
        found[f"{name}, process less this"] = list(
            auroc_difference(labels, others, scores, groups=groups)
        )
    return found


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    heads = (
        "value at the end of a step", "first incorrect step against those before it",
        "against the same step of the correct solution",
    )
    lines = [
        [name, *(
            f"{value:.3f} ({low:.3f}, {high:.3f})"
            for value, low, high in (own["within"], own["against"])
        )]
        for name, own in figures.items()
    ]
    return markdown(heads, lines) + "\n"


if __name__ == "__main__":
    main()
