"""Train the demo's policy with TRL's GRPO and our reward function; accuracy before and after.

    python runs/grpo_arithmetic.py OUT SEED… [--reward PLAN] [--steps N] [--beta B]

Each seed has its own policy, pairs, reward model (one of the demo's) and questions. Only the reward
model gives rewards. The checker of answers measures accuracy alone, as a second reward function of
weight 0 that TRL logs. Writes OUT/SEED/figures.json (with reward and accuracy during training) and
OUT/summary.json.
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from rewardsteer.data.sources.arithmetic import build_tokenizer, draw_question, is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.reward_models import plans, train_reward_model
from rewardsteer.demo.world import (
    TEMPLATE,
    draw_questions,
    longest_solution,
    make_pairs,
    make_policy,
    sample_pairs,
)
from rewardsteer.evaluation.statistics import (
    auroc_interval,
    mean_of_runs,
    paired_difference,
    proportion,
)
from rewardsteer.integrations.trl import RewardFunction
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import write_json
from rewardsteer.quiet import quiet_libraries

GENERATIONS = 8
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--reward", default="pargs", help="name of a reward model of the demo")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--beta", type=float, default=0.5, help="weight of the KL divergence")
    parser.add_argument("--questions", type=int, default=1000,
                        help="number of questions that measure accuracy")
    arguments = parser.parse_args()
    quiet_libraries()
    seeds = [one_seed(arguments.out / str(seed), seed, arguments) for seed in arguments.seeds]
    write_json(arguments.out / "summary.json", {"seeds": seeds, "over_seeds": over_seeds(seeds)})


def one_seed(
    out: Path, seed: int, arguments: argparse.Namespace, config: DemoConfig | None = None
) -> dict[str, Any]:
    """Make policy and reward model, train by GRPO; returns figures before and after."""
    config = config or DemoConfig(seed=seed)
    tokenizer = build_tokenizer()
    place = out / "policy" / "model"
    if not place.exists():
        make_policy(config, tokenizer, place.parent, progress=False)
    folder = out / arguments.reward
    if not (folder / "model").exists():
        reward_model(folder, place, config, tokenizer)
    scorer = load_scorer(folder / "model")
    questions = draw_questions(arguments.questions, config, "grpo-test")
    before = measure(load_policy(place), tokenizer, scorer, questions, config)
    began = time.perf_counter()
    trained, curve = train(
        place, tokenizer, scorer, out / f"grpo-{arguments.reward}", config, arguments
    )
    seconds = time.perf_counter() - began
    after = measure(load_policy(trained), tokenizer, scorer, questions, config)
    figures: dict[str, Any] = {
        "seed": seed, "seconds": seconds, "questions": len(questions), "curve": curve,
        "settings": {
            name: getattr(arguments, name) for name in ("reward", "steps", "learning_rate", "beta")
        },
    }
    for mode in ("sampled", "greedy"):
        for name, values in (("before", before[mode]), ("after", after[mode])):
            share = proportion(sum(values["correct"]), len(questions))
            figures[f"{mode}_{name}"] = share._asdict()
            figures[f"{mode}_{name}_reward"] = float(np.mean(values["reward"]))
        gain = paired_difference(after[mode]["correct"], before[mode]["correct"])
        figures[f"{mode}_gain"] = gain._asdict()
    figures["auroc_before"] = auroc_interval(
        before["sampled"]["correct"], before["sampled"]["reward"])._asdict()
    figures["auroc_after"] = auroc_interval(
        after["sampled"]["correct"], after["sampled"]["reward"])._asdict()
    write_json(out / "figures.json", figures)
    print(figures, flush=True)
    return figures


def reward_model(folder: Path, place: Path, config: DemoConfig, tokenizer: Any) -> None:
    """Train one of the demo's reward models on pairs of solutions sampled from the policy."""
    drawn = sample_pairs(load_policy(place), tokenizer, config)
    plan = next(plan for plan in plans(config) if plan.name == folder.name)
    train_reward_model(
        plan, place, tokenizer, make_pairs(drawn, tokenizer, config), config, folder,
        progress=False, announce=print,
    )


def train(
    policy: Path, tokenizer: Any, scorer: Scorer, out: Path, config: DemoConfig,
    arguments: argparse.Namespace,
) -> tuple[Path, list[dict[str, float]]]:
    """Train by GRPO from the policy's weights; returns the model's folder and logged figures."""
    set_seed(config.seed)
    rng = random.Random(f"{config.seed}/grpo")
    prompts = [draw_question(rng, config.task)
               for _ in range(arguments.steps * BATCH // GENERATIONS)]
    settings = GRPOConfig(
        output_dir=str(out), max_steps=arguments.steps, learning_rate=arguments.learning_rate,
        per_device_train_batch_size=BATCH, num_generations=GENERATIONS, beta=arguments.beta,
        max_completion_length=longest_solution(config), temperature=1.0, use_cpu=True, bf16=False,
        lr_scheduler_type="constant_with_warmup", warmup_steps=5, logging_steps=10,
        save_strategy="no", report_to="none", seed=config.seed, disable_tqdm=True,
        reward_weights=[1.0, 0.0],
    )
    trainer = GRPOTrainer(
        model=load_policy(policy), args=settings, processing_class=tokenizer,
        reward_funcs=[RewardFunction(scorer, batch_size=BATCH, name="reward_model"), truth],
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))
    tokenizer.save_pretrained(out / "model")
    curve = [
        {"step": line["step"], "reward": line["rewards/reward_model/mean"],
         "accuracy": line["rewards/truth/mean"]}
        for line in trainer.state.log_history if "rewards/truth/mean" in line
    ]
    return out / "model", curve


def truth(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """Correctness by the checker; it has weight 0 in training."""
    return [float(is_correct(p, c)) for p, c in zip(prompts, completions, strict=True)]


def measure(
    policy: Any, tokenizer: Any, scorer: Scorer, questions: list[str], config: DemoConfig
) -> dict[str, dict[str, list[float]]]:
    """Correctness and reward of one sampled and one greedy solution per question."""
    figures = {}
    for mode in ("sampled", "greedy"):
        settings = DecodingConfig(
            method="none", mode="greedy" if mode == "greedy" else "sample", top_k=0,
            max_new_tokens=longest_solution(config), batch_size=250, seed=config.seed,
        )
        requests = [Request(id=f"test/{i}", prompt=q) for i, q in enumerate(questions)]
        drawn = list(generate(
            policy, tokenizer, requests, build_method(settings), settings, template=TEMPLATE
        ))
        solutions = [generation.completion for generation in drawn]
        figures[mode] = {
            "correct": [float(is_correct(q, s)) for q, s in zip(questions, solutions, strict=True)],
            "reward": scorer.score(questions, solutions, batch_size=250).tolist(),
        }
    return figures


def over_seeds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean gain over seeds, with Student's interval where there are several."""
    figures = {}
    for mode in ("sampled", "greedy"):
        gains = [seed[f"{mode}_gain"]["value"] for seed in seeds]
        mean = mean_of_runs(gains)
        figures[mode] = {"mean": mean.value, "gains": gains}
        if not math.isnan(mean.low):
            figures[mode] |= {"low": mean.low, "high": mean.high}
    return figures


if __name__ == "__main__":
    main()
