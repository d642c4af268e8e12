"""The demo: policy → pairs → reward models → comparison → page, on the arithmetic task."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.arithmetic import build_tokenizer, is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.policy import load_policy
from rewardsteer.demo.compare import World, compare_methods, judge_samples
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.goal import evaluate_goal
from rewardsteer.demo.page import write_demo_page
from rewardsteer.demo.processes import side_by_side
from rewardsteer.demo.reward_models import Task, plans, train_all
from rewardsteer.demo.world import draw_questions, make_pairs, make_policy, sample, sample_pairs
from rewardsteer.evaluation.inspection import FilterRule, as_read, inspect_completion
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.goals.files import load_goal
from rewardsteer.models.checkpoint import library_versions
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import claim_folder, write_json, write_text
from rewardsteer.processors import processors
from rewardsteer.quiet import keep_log, quiet_libraries
from rewardsteer.records import Generation

# Each process holds the libraries and the small models, some hundred MiB.
_MOST_PROCESSES = 8
_EACH = 3  # questions shown with each reward model


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


def inspect_solutions(
    policy: Any, tokenizer: Any, scorers: Mapping[str, Scorer], config: DemoConfig,
    weight: float, threshold: float, out: Path,
) -> None:
    """Write ``OUT/inspections.jsonl``.

    First come questions that the policy alone answers incorrectly: its solution and the one guided
    by FaRMA. Then come solutions of the policy with similarities to the goal state and the filter.

    Args:
        policy, tokenizer, scorers, config: those of the demo.
        weight: FaRMA's guidance weight.
        threshold: the similarity filter's threshold, chosen on other questions.
        out: the demo's folder, which holds the comparison.
    """
    place = out / "comparison" / "test"
    plain, guided = (
        {key: record.generation for key, record in read_records(place / f"{name}.jsonl").items()}
        for name in ("none", "farma")
    )
    wrong = [key for key, one in plain.items() if not _right(one)]
    right = [key for key in plain if key not in wrong]
    farma = DecodingConfig(method="farma", weight=weight, top_k=10)
    alone = DecodingConfig(method="none", top_k=10)
    goal = load_goal(Path(scorers["goal"].name))
    found: list[Inspection] = []

    def look(generation: Generation, scorer: Scorer, settings: DecodingConfig, label: str,
             **options: Any) -> None:
        method = build_method(settings, scorer)
        row = {"id": generation.id, "prompt": generation.prompt, "token_ids": generation.token_ids}
        ids = as_read(policy, tokenizer, scorer, method, settings, row)
        one = inspect_completion(
            policy, tokenizer, scorer, method, *ids, config=settings, name=str(len(found)),
            **options,
        )
        found.append(one.model_copy(update={
            "label": f"{generation.prompt} {label}", "is_correct": _right(generation),
            "settings": settings.model_dump(mode="json", include={"method", "weight"})
            | {"reward_fingerprint": scorer.fingerprint},
        }))

    for key in wrong[:_EACH]:
        look(plain[key], scorers["farma"], farma, "by the policy, under FaRMA")
        look(guided[key], scorers["farma"], farma, "by FaRMA")
    rule = FilterRule("similarity", threshold, start=0)
    for key in [*wrong[:_EACH], *right[:_EACH]]:
        look(plain[key], scorers["goal"], alone, "by the policy, under the goal model",
             goal=goal, rule=rule)
    write_text(out / "inspections.jsonl", "".join(one.model_dump_json() + "\n" for one in found))


def _right(generation: Generation) -> bool:
    return is_correct(generation.prompt, generation.completion)
