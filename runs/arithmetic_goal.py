"""Train and evaluate a baseline and forms of goal-conditioned models on the arithmetic task.

    python runs/arithmetic_goal.py OUT SEED… [--plans PLAN…]

Each seed has its own policy, pairs and test questions; all plans of a seed share them and train for
as many updates. Writes OUT/PLAN-SEED/metrics/metrics.json; summarise_goal.py makes tables of them.
"""

import argparse
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.decoding.policy import load_policy
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.goal import goal_of, score, solution_rows
from rewardsteer.demo.reward_models import Phase, Plan, train_reward_model
from rewardsteer.demo.world import draw_questions, make_pairs, make_policy, sample, sample_pairs
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.run import evaluate_correctness
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.outputs import write_json
from rewardsteer.quiet import quiet_libraries
from rewardsteer.training.config import TermConfig

# Plan → value head, weight and options of the contrastive objective (None: Bradley-Terry alone).
# The published form has its published weight.
PLANS: dict[str, tuple[str, float, dict[str, Any] | None]] = {
    "baseline": ("linear", 0, None),
    "baseline-mlp": ("mlp", 0, None),
    "goal": ("linear", 0.25, {}),
    "goal-mlp": ("mlp", 0.25, {}),
    "future": ("linear", 0.25, {"form": "future"}),
    "published": ("linear", 0.5, {"form": "published"}),
    "published-average": ("linear", 0.5, {"form": "published", "strategy": "cosine_avg"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--plans", nargs="+", default=list(PLANS), choices=list(PLANS))
    arguments = parser.parse_args()
    quiet_libraries()
    for seed in arguments.seeds:
        one_seed(arguments.out, DemoConfig(seed=seed), arguments.plans)


def one_seed(out: Path, config: DemoConfig, names: list[str]) -> None:
    names = [n for n in names if not (out / f"{n}-{config.seed}" / "metrics").exists()]
    if not names:
        return
    tokenizer = build_tokenizer()
    place = out / f"policy-{config.seed}" / "model"
    if not place.exists():
        make_policy(config, tokenizer, place.parent, progress=False)
    policy = load_policy(place)
    drawn = sample_pairs(policy, tokenizer, config)
    pairs = make_pairs(drawn, tokenizer, config)
    asked = list(dict.fromkeys(draw_questions(config.vote_questions, config, "votes")))
    rows = solution_rows(
        sample(policy, tokenizer, asked, config, samples=config.vote_samples, stream="votes")
    )
    before = out / f"baseline-{config.seed}" / "scores"
    baseline = load_scored(before)[0] if before.exists() else None
    for name in names:
        folder = out / f"{name}-{config.seed}"
        scorer = load_scorer(train_reward_model(
            plan(name, config), place, tokenizer, pairs, config, folder, progress=False,
            announce=print,
        ))
        scored = score(scorer, goal_of(scorer, pairs), rows, folder / "scores")
        baseline = scored if name == "baseline" else baseline
        settings = CorrectnessConfig(start=0, draws=40, orders=5, adaptive=[0.95], windows=[3, 5])
        figures = evaluate_correctness(scored, {}, settings, baseline=baseline)
        write_json(folder / "metrics" / "metrics.json", figures)
        print(folder, round(figures["arithmetic"]["auroc"], 3), flush=True)


def plan(name: str, config: DemoConfig) -> Plan:
    layers, weight, contrast = PLANS[name]
    terms = [TermConfig(
        name="bradley_terry", options={"center_coefficient": config.center_coefficient}
    )]
    if contrast is not None:
        terms.append(TermConfig(name="goal_contrastive", weight=weight, options=contrast))
    head = HeadConfig.model_validate({"kind": "scalar", "layers": layers})
    return Plan(name, head, (Phase(tuple(terms), config.reward_steps),))


if __name__ == "__main__":
    main()
