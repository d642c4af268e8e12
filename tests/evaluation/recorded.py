"""Figures of every evaluation on tiny models, written down.

``python -m tests.evaluation.recorded`` writes `PLACE`, ``test_recorded.py`` compares with it.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.requests import Request
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.run import evaluate_correctness
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.inspection import FilterRule, inspect_completion
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.preference import evaluate_preference
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import tiny_causal_lm

PLACE = Path(__file__).with_name("recorded.json")
# Figures that no two runs share, or that weights made elsewhere change.
_MACHINE = ("seconds", "fingerprint")


def make_world(root: Path) -> dict[str, Any]:
    """A policy, two reward models and a goal state over arithmetic."""
    tokenizer = build_tokenizer()
    policy = tiny_causal_lm(vocab_size=len(tokenizer))
    policy.save_pretrained(root / "base")
    world: dict[str, Any] = {"root": root, "policy": policy, "tokenizer": tokenizer}
    for kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        model = RewardModel.from_base(root / "base", head)
        card = CheckpointCard(head=head, template=Template().model_dump(mode="json"))
        model.save_pretrained(root / kind, tokenizer, card)
        world[kind] = load_scorer(root / kind)
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 32)).astype(np.float32))
    world["goal"] = GoalState("mean", states, Provenance(
        kind="mean", model_fingerprint=world["scalar"].fingerprint, count=1,
    ))
    return world


def preference(world: dict[str, Any]) -> Any:
    """`evaluate_preference` on prepared comparisons."""
    source = {"name": "arithmetic", "options": {"rows": 80}}
    data = world["root"] / "data"
    prepare(DataConfig.model_validate({"source": source}), world["tokenizer"], data)
    return evaluate_preference(world["scalar"], data)


def scored(world: dict[str, Any]) -> Any:
    """A file of rewards and similarities of every token."""
    rows = [{"prompt": f"{i % 10}+{i // 10}=", "completion": f"{i % 10}+3={i % 7};"}
            for i in range(23)]
    out = world["root"] / "scores.jsonl"
    score_rows(world["scalar"], rows, out, Settings(goal=world["goal"], tokens=True))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def correctness(world: dict[str, Any]) -> Any:
    """Ranking, votes, stopping, filtering and calibration of simulated solutions."""
    paths = [world["root"] / name for name in ("own", "baseline")]
    for number, path in enumerate(paths):
        _simulate(path, noise=0.8 + number)
    config = CorrectnessConfig(draws=20, orders=3)
    own, other = (load_scored(path) for path in paths)
    return evaluate_correctness(*own, config, baseline=other[0])


def _simulate(folder: Path, noise: float) -> None:
    """Correct solutions (answer 1) have the higher values; one solution in 20 has no reward."""
    rng = np.random.default_rng(0)
    for part, samples in (("all", 6), ("greedy", 1)):
        (folder / part).mkdir(parents=True)
        lines = []
        for question in range(40):
            for sample in range(samples):
                answer = "1" if rng.random() < 0.6 else str(rng.integers(2, 4))
                level = (0.5 if answer == "1" else -0.5) + noise * rng.normal()
                values = np.tanh(level + 0.2 * rng.normal(size=10)).round(6).tolist()
                row = {
                    "benchmark": "b", "question_id": f"q{question:03}", "sample": f"rs{sample}",
                    "model": f"m{sample % 2}", "prompt": f"q{question}", "completion": "c",
                    "predicted_answer": answer, "is_correct": answer == "1",
                }
                if rng.random() < 0.95:
                    row |= {"reward": values[-1], "token_rewards": values, "prompt_tokens": 2,
                            "token_similarities": values[::-1], "token_count": len(values)}
                lines.append(json.dumps(row) + "\n")
        (folder / part / "b.jsonl").write_text("".join(lines))


def generation(world: dict[str, Any], name: str) -> Any:
    """`compare` of several methods; with a budget, or with divergences from the policy."""
    options = {"max_new_tokens": 6, "batch_size": 3, "top_k": 4, "seed": 3}

    def config(method: str, **changes: Any) -> DecodingConfig:
        return DecodingConfig.model_validate({"method": method, **options, **changes})

    scalar, vocabulary = world["scalar"], world["vocabulary"]
    entries = [
        Entry("none", config("none")),
        Entry("farma w=1", config("farma"), vocabulary, sweep="farma"),
        Entry("farma w=2", config("farma", weight=2.0), vocabulary, sweep="farma"),
        Entry("args", config("args"), scalar),
        Entry("best", config("best_of_n", n=3), scalar),
        Entry("greedy", config("none", mode="greedy")),
    ]
    given: dict[str, Any] = (
        {"budget": Budget("tokens", 60.0)} if name == "budget" else {"kl_prompts": 3}
    )
    compare(
        entries, ComparedPolicy.loaded(world["policy"], world["tokenizer"]),
        [Request(id=str(i), prompt=f"{i}+{i}=") for i in range(12)],
        Judge(scalar, {"letters": lambda one: float(len(one.completion))}),
        world["root"] / name, **given,
    )
    folder = world["root"] / name
    return {
        "summary": json.loads((folder / "summary.json").read_text(encoding="utf-8")),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")),
        "records": [
            json.loads(line)
            for line in (folder / "farma_w=1.jsonl").read_text(encoding="utf-8").splitlines()
        ],
    }


def inspection(world: dict[str, Any]) -> Any:
    """One completion token by token, under a vocabulary and a scalar reward model."""
    found = []
    for method, kind in (("farma", "vocabulary"), ("args", "scalar")):
        config = DecodingConfig.model_validate({"method": method, "top_k": 4})
        one = inspect_completion(
            world["policy"], world["tokenizer"], world[kind], build_method(config, world[kind]),
            [3, 14, 5], [6, 7, 8, 9], config=config, alternatives=3,
            goal=world["goal"] if kind == "scalar" else None,
            rule=FilterRule("reward", 0.0, 1),
        )
        found.append(one.model_dump(mode="json"))
    return found


def results(root: Path) -> dict[str, Any]:
    """All evaluations by name, JSON-ready, without what differs between machines."""
    world = make_world(root)
    return dict(json.loads(json.dumps(_stable({
        "preference": preference(world), "scored": scored(world),
        "correctness": correctness(world), "budget": generation(world, "budget"),
        "kl": generation(world, "kl"), "inspection": inspection(world),
    }))))


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _stable(one) for key, one in value.items()
            if not any(part in key for part in _MACHINE)
        }
    if isinstance(value, list):
        return [_stable(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def main() -> None:
    """Write all results down."""
    with tempfile.TemporaryDirectory() as name:
        found = results(Path(name))
    PLACE.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
