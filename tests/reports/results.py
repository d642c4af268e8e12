"""Result folders as the commands leave them, made of random numbers in no time.

Figures come from the same functions as the commands', so their shape is the real one.
"""

import json
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rewardsteer.evaluation import runs as evaluation_runs
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.run import evaluate_correctness
from rewardsteer.evaluation.correctness.scored import Benchmark, Question
from rewardsteer.evaluation.inspection_records import (
    Alternative,
    FilterStop,
    InspectedToken,
    Inspection,
)
from rewardsteer.evaluation.method_figures import summarise
from rewardsteer.evaluation.preference_figures import ScoredPairs
from rewardsteer.evaluation.preference_figures import summarise as pair_figures
from rewardsteer.outputs import file_name, write_json
from rewardsteer.records import Cost, EvalRecord, Generation, Solution

HOSTILE = "<script>boom()</script>\"'><img src=x onerror=boom()>$a_{b}$</p>\u2028"


def write_lines(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(
        (json.dumps(row) if isinstance(row, dict) else row.model_dump_json()) + "\n" for row in rows
    ))


def training(folder: Path, seed: int = 0) -> Path:
    rng, rows = random.Random(seed), []
    for phase in ("01-bradley_terry", "02-max_constraint"):
        for step in range(10, 210, 10):
            rows.append({
                "phase": phase, "step": step, "loss": 0.7 * 0.99**step + rng.random() / 20,
                "accuracy": min(1.0, 0.55 + step / 600 + rng.random() / 20),
                "learning_rate": 1e-3 * (1 - step / 210), "tokens_per_second": 9e3 + rng.random(),
            })
            if step % 100 == 0:
                rows.append({"phase": phase, "step": step, "eval_accuracy": 0.6 + step / 1000})
        rows.append({"phase": phase, "step": 200, "peak_memory_mib": 700.0})
    write_lines(folder / "metrics.jsonl", rows)
    write_json(folder / "run.json", {"config": {"seed": seed}, "versions": {"torch": "2"}})
    return folder


def preferences(folder: Path, seed: int = 0, shift: float = 0.5) -> Path:
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(400, 2)) + np.array([shift, 0])
    lengths = rng.integers(5, 120, size=(400, 2))
    subsets = [("harmless", "helpful", HOSTILE)[i % 3] for i in range(400)]
    pairs = ScoredPairs(rewards, lengths, subsets, np.arange(len(rewards)))
    texts = [(f"question {i}", f"chosen {i}", f"rejected {i}") for i in range(400)]
    figures = pair_figures(pairs, texts, too_long=3)
    write_json(folder / "metrics.json", {"reward_model": "out/bt/model", **figures})
    return folder


def correctness(folder: Path, seed: int = 0, noise: float = 1.0) -> Path:
    rng, questions = np.random.default_rng(seed), []
    for number in range(24):
        solutions = []
        for sample in range(6):
            right, length = bool(rng.random() < 0.6), int(rng.integers(8, 30))
            drift = np.linspace(0, 1 if right else -1, length)
            values = drift + noise * rng.normal(size=length) / 2
            solutions.append(Solution(
                benchmark="gsm8k", question_id=str(number), sample=f"rs{sample}", prompt="?",
                completion="!", predicted_answer="1" if right else str(rng.integers(2, 4)),
                is_correct=right, reward=float(values[-1]), token_rewards=values.tolist(),
                token_similarities=np.tanh(values).tolist(), token_count=length, prompt_tokens=5,
            ))
        questions.append(Question(str(number), solutions))
    settings = CorrectnessConfig(
        start=2, draws=10, orders=2, steps=5, windows=[3], adaptive=[0.95]
    )
    benchmark = Benchmark("gsm8k", questions, 0, 0)
    metrics = evaluate_correctness({"gsm8k": benchmark}, {}, settings)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "settings.json", settings.model_dump(mode="json"))
    return folder


WORDS = ["the", "reward", "of", "a", "prefix", "is", "worth", "its", "best", "completion"]


def comparison(folder: Path, seed: int = 0, prompts: int = 12) -> Path:
    rng, records = random.Random(seed), {}
    methods = {"none": 0.0, "best_of_n": 0.4, "farma w=1": 0.7, "farma w=2": 0.9}
    for label, gain in methods.items():
        rows = []
        for index in range(prompts):
            text = " ".join(rng.choices(WORDS, k=rng.randint(6, 24)))
            tokens = len(text.split())
            prompt = HOSTILE if index == 1 else f"Say something about prefix {index}."
            calls = tokens if "farma" in label else 0
            rows.append(EvalRecord(
                generation=Generation(
                    id=str(index), prompt=prompt, completion=HOSTILE if index == 2 else text,
                    method=label, token_ids=list(range(tokens)),
                    cost=Cost(new_tokens=tokens, lm_calls=tokens, rm_calls=calls, seconds=0.1
                              * (1 + gain)),
                ),
                metrics={"reward": rng.gauss(gain, 0.5), "surprise": 1.0 + gain / 3,
                         "accuracy": float(rng.random() < 0.4 + gain / 2)},
                extra={"equivalent_tokens": tokens * (1.0 + gain)},
            ))
        records[label] = rows
        write_lines(folder / file_name(label), rows)
    summary = {label: summarise(rows, records["none"]) for label, rows in records.items()}
    for label, gain in methods.items():
        summary[label]["kl"] = 2 * gain
    write_json(folder / "summary.json", {
        "methods": summary, "baseline": "none", "sweeps": {"farma": ["farma w=1", "farma w=2"]},
        "weights": {"farma w=1": 1.0, "farma w=2": 2.0},
    })
    write_json(folder / "run.json", {"model": "policy", "judge": "out/bt/model",
                                     "fingerprints": {"out/bt/model": "0123456789abcdef"}})
    return folder


def over_runs(folder: Path, seeds: int = 3, prompts: int = 12) -> Path:
    """Several comparisons and their figures together, as ``--seeds`` leaves them."""
    runs = [comparison(folder / f"seed-{seed}", seed, prompts) for seed in range(seeds)]
    evaluation_runs.over_runs(runs, folder / "seeds.json")
    write_json(folder / "run.json", {"model": "policy", "judge": "out/bt/model"})
    return folder


def inspection(name: str = "0", text: str = "7+8=5;5*3=5\n#5 and so on", seed: int = 0,
               stop: int | None = 11) -> Inspection:
    rng = random.Random(seed)
    tokens, reward, similarity = [], 0.0, 0.1
    for index, letter in enumerate(text):
        reward += rng.gauss(-0.4 if stop is not None and index > 7 else 0.1, 0.25)
        similarity = max(-1.0, min(1.0, similarity + rng.gauss(0.02, 0.12)))
        others = [letter, *rng.sample("0123456789+*; ", 5)]
        shares = sorted((rng.random() for _ in others), reverse=True)
        both = sorted((rng.random() ** 2 for _ in others), reverse=True)

        def column(values, order, total=1.0):
            return [
                Alternative(token_id=ord(one), text=one, value=value / total,
                            rank=rank if rank < 6 else 37)
                for rank, (one, value) in enumerate(zip(order, values, strict=True), start=1)
            ]

        shuffled = others[1:] + others[:1] if index % 4 == 2 else others
        tokens.append(InspectedToken(
            token_id=ord(letter), text=letter, reward=reward, similarity=similarity,
            kl=0.3 * rng.random(), moved=rng.random() ** 3,
            policy=column(shares, shuffled, sum(shares)),
            reward_model=column([2 * one - 1 for one in shares], others),
            guided=column(both, others, sum(both)),
        ))
    return Inspection(
        id=name, label=f"solution {name}", prompt="7+8*3=", completion=text, method="farma",
        is_correct=stop is None, tokens=tokens,
        stop=FilterStop(signal="similarity", threshold=0.05, start=5, index=stop),
        settings={"reward_fingerprint": "0123456789abcdef", "weight": 1.0},
    )


def inspections(folder: Path) -> Path:
    write_lines(folder / "inspections.jsonl", [
        inspection("0"), inspection("1", text="a b\tc" + HOSTILE, seed=1, stop=None),
        inspection("2", text="So the answer is " * 12, seed=2, stop=40),
    ])
    return folder


def everything(root: Path) -> Path:
    """A folder of every kind of run, two of most."""
    training(root / "bt")
    training(root / "farma", seed=1)
    preferences(root / "accuracy-bt")
    preferences(root / "accuracy-farma", seed=1, shift=0.9)
    correctness(root / "correctness-plain", noise=2.5)
    correctness(root / "correctness-goal", seed=1)
    comparison(root / "evaluation")
    inspections(root / "inspected")
    with TemporaryDirectory() as elsewhere:
        several = over_runs(Path(elsewhere) / "seeds") / "seeds.json"
        (root / "together").mkdir()
        shutil.move(several, root / "together" / "runs.json")
    return root
