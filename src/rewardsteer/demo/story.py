"""The demo: policy → pairs → reward models → comparison → page, on the arithmetic task."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.decoding.policy import load_policy
from rewardsteer.demo.compare import World, compare_methods, judge_samples
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.goal import evaluate_goal
from rewardsteer.demo.inspect import inspect_solutions
from rewardsteer.demo.page import write_demo_page
from rewardsteer.demo.processes import side_by_side
from rewardsteer.demo.reward_models import Task, plans, train_all
from rewardsteer.demo.world import draw_questions, make_pairs, make_policy, sample, sample_pairs
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.models.checkpoint import library_versions
from rewardsteer.outputs import claim_folder, write_json
from rewardsteer.processors import processors
from rewardsteer.quiet import keep_log, quiet_libraries

# Each process holds the libraries and the small models, some hundred MiB.
_MOST_PROCESSES = 8


def run_demo(
    config: DemoConfig, out: Path, *, overwrite: bool = False, progress: bool = True,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the demo and return what ``OUT/summary.json`` holds.

    Args:
        config: sizes and seed.
        out: output folder, empty unless ``overwrite``; gets ``report.html`` too.
        announce: called with a line of text as each step begins.

    Raises:
        OutputError: the folder is not empty.
    """
    began = time.perf_counter()
    claim_folder(out, overwrite=overwrite)
    # The terminal shows results and progress; diagnostic lines go to the log.
    quiet_libraries(logging.WARNING)
    keep_log(out)
    tokenizer = build_tokenizer()
    announce("training the flawed policy")
    place = make_policy(config, tokenizer, out / "policy", progress=progress)
    policy = load_policy(place)
    announce("sampling solutions and pairing correct with incorrect ones")
    samples = sample_pairs(policy, tokenizer, config)
    pairs = make_pairs(samples, tokenizer, config)
    fresh = sample(
        policy, tokenizer, draw_questions(config.fresh, config, "fresh"), config, samples=1,
        stream="fresh",
    )
    announce(f"{len(pairs)} pairs; accuracy of sampled solutions {samples.accuracy:.1%}")
    task = Task(place, tokenizer, pairs, config, out)
    count = config.num_proc or min(processors(), _MOST_PROCESSES)
    with side_by_side(count, out) as processes:
        scorers = train_all(
            plans(config), task, processes, progress=progress, announce=announce
        )
        reward_models = judge_samples(scorers, fresh, config)
        goal = evaluate_goal(
            policy, tokenizer, scorers, pairs, config, out / "goal", announce=announce
        )
        announce("comparing decoding methods")
        methods, budget, weights = compare_methods(
            World(ComparedPolicy.loaded(policy, tokenizer), scorers, config, out), processes,
            goal_threshold=goal["threshold"], announce=lambda label: announce(f"  {label}"),
        )
    announce("inspecting some solutions token by token")
    inspect_solutions(
        policy, tokenizer, scorers, config, weights["farma"], goal["threshold"], out
    )
    summary = {
        "methods": methods,
        "budget": budget,
        "reward_models": reward_models,
        "goal": goal,
        "weights": weights,
        "pairs": len(pairs),
        "config": config.model_dump(mode="json"),
        "versions": library_versions(),
        "seconds": time.perf_counter() - began,
    }
    write_json(out / "summary.json", summary)
    write_demo_page(out)
    return summary

