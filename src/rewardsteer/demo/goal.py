"""Ranking, prefixes and filtered votes by the demo's goal-conditioned and Bradley-Terry models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rewardsteer.answers import extract_answer
from rewardsteer.data.sets import Row
from rewardsteer.data.solutions import question_key
from rewardsteer.data.sources.arithmetic import answer
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.world import Samples, draw_questions, sample
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.run import evaluate_correctness
from rewardsteer.evaluation.correctness.scored import Benchmark
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.goals.build import mean_goal
from rewardsteer.goals.files import save_goals
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import write_json
from rewardsteer.records import Solution

BENCHMARK = "arithmetic"
MODELS = ("plain", "goal")


def evaluate_goal(
    policy: Any, tokenizer: Any, scorers: Mapping[str, Scorer], pairs: list[Row],
    config: DemoConfig, out: Path, *, announce: Callable[[str], None],
) -> dict[str, Any]:
    """Draw questions, score several solutions of each with both models, and evaluate the scores.

    Files: ``OUT/MODEL/all/arithmetic.jsonl`` and ``OUT/MODEL/metrics.json``; the goal state is
    saved beside the goal-conditioned model.

    Returns:
        the figures that ``summary.json`` holds under ``goal``.
    """
    announce("scoring several solutions per question, token by token")
    questions = list(dict.fromkeys(draw_questions(config.vote_questions, config, "votes")))
    rows = solution_rows(
        sample(policy, tokenizer, questions, config, samples=config.vote_samples, stream="votes")
    )
    settings = CorrectnessConfig(
        start=0, draws=40, orders=5, windows=[3, 5], adaptive=[0.95],
        seed=config.seed,
    )
    goals = {name: goal_of(scorers[name], pairs) for name in MODELS}
    save_goals(Path(scorers["goal"].name), {"preferred": goals["goal"]})
    scored = {name: score(scorers[name], goals[name], rows, out / name) for name in MODELS}
    metrics = {
        name: evaluate_correctness(
            scored[name], {}, settings, baseline=scored["plain"] if name == "goal" else None
        )
        for name in MODELS
    }
    for name in MODELS:
        write_json(out / name / "metrics.json", metrics[name])
    return _summary(metrics["goal"][BENCHMARK], metrics["plain"][BENCHMARK])


def solution_rows(samples: Samples) -> list[dict[str, Any]]:
    """Solutions as `Solution` rows; equal texts stay separate samples."""
    seen: dict[str, int] = {}
    rows = []
    for question, text, correct in zip(
        samples.questions, samples.solutions, samples.correct, strict=True
    ):
        number = seen[question] = seen.get(question, -1) + 1
        rows.append(Solution(
            benchmark=BENCHMARK, question_id=question_key(question), sample=f"rs{number}",
            prompt=question, completion=text, predicted_answer=extract_answer(text),
            expected_answer=str(answer(question)), is_correct=correct,
        ).model_dump(mode="json", exclude_defaults=True))
    return rows


def goal_of(scorer: Scorer, pairs: list[Row]) -> GoalState:
    """A goal state: the mean of the last states of the pairs' correct solutions."""
    return mean_goal(
        scorer, [row["prompt_ids"] for row in pairs], [row["chosen_ids"] for row in pairs]
    )


def score(
    scorer: Scorer, goal: GoalState, rows: list[dict[str, Any]], out: Path
) -> dict[str, Benchmark]:
    """Score solutions into ``OUT/all/arithmetic.jsonl`` and read them back by question."""
    place = out / "all" / f"{BENCHMARK}.jsonl"
    place.parent.mkdir(parents=True)
    score_rows(scorer, rows, place, Settings(goal, True, 16384))
    return load_scored(out)[0]


def _summary(goal: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    gain = goal["against_baseline"]["reward"]
    points = goal["auroc_by_percentile"] | {"baseline": plain["auroc_by_percentile"]["reward"]}
    chosen = goal["filtering"]["similarity"]["best"]  # chosen on the validation questions
    return {
        **{name: goal[name] for name in ("auroc", "auroc_low", "auroc_high") if name in goal},
        "auroc_similarity": goal["auroc_similarity"],
        "auroc_baseline": plain["auroc"],
        "auroc_gain": gain["gain"],
        **{f"auroc_gain_{end}": gain[end] for end in ("low", "high") if end in gain},
        "auroc_by_percentile": points,
        "vote_accuracy": chosen["accuracy_before"],
        "vote_accuracy_filtered": chosen["accuracy"],
        "best_of_accuracy": chosen["best_of_accuracy"],
        "tokens_saved": chosen["tokens_saved"],
        "tokens_saved_net": chosen["tokens_saved_net"],
        "threshold": chosen["threshold"],
    }
