"""All figures of ``evaluate correctness`` from scored solutions, by benchmark."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rewardsteer.evaluation.correctness.config import CorrectnessConfig, Signal
from rewardsteer.evaluation.correctness.filtering import (
    Filtered,
    choose_best,
    choose_by_risk,
    choose_free,
    filter_questions,
    questions_needed,
    summarise,
    threshold_grid,
)
from rewardsteer.evaluation.correctness.probability import calibrate
from rewardsteer.evaluation.correctness.ranking import compare_rankings, ranking
from rewardsteer.evaluation.correctness.scored import Benchmark, Question, signals
from rewardsteer.evaluation.correctness.votes import (
    at_equal_tokens,
    by_samples,
    fit_temperature,
    measured,
    stopping_rules,
    vote_curve,
    with_all_samples,
)
from rewardsteer.evaluation.statistics import over

Benchmarks = dict[str, Benchmark]


def evaluate_correctness(
    sampled: Benchmarks, greedy: Benchmarks, config: CorrectnessConfig, *,
    baseline: Benchmarks | None = None, announce: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Figures by benchmark.

    Args:
        sampled: several solutions per question.
        greedy: one solution per question; ranked separately under ``greedy``.
        config: see `CorrectnessConfig`.
        baseline: the same solutions scored by another reward model, for paired differences.
        announce: called with each benchmark's name.
    """
    figures: dict[str, dict[str, Any]] = {}
    for name in sorted(sampled.keys() | greedy.keys()):
        announce(name)
        main = sampled.get(name) or greedy[name]
        if not main.questions:
            continue
        record = _one(main, config)
        if name in greedy and greedy[name].questions:
            record["greedy"] = _counts(greedy[name]) | ranking(greedy[name], config)
        if baseline and name in baseline:
            record["against_baseline"] = compare_rankings(main, baseline[name], config)
        figures[name] = record
    return figures


def _counts(benchmark: Benchmark) -> dict[str, Any]:
    sizes = [len(question.solutions) for question in benchmark.questions]
    solutions = benchmark.solutions
    tokens = float(np.mean([one.token_count for one in solutions]))
    return {
        "questions": len(sizes),
        "intervals": over(len(sizes), "question"),
        "solutions": len(solutions),
        "solutions_per_question": {"min": min(sizes), "max": max(sizes)},
        "unlabelled": benchmark.unlabelled,
        "skipped": benchmark.skipped,
        "unanswered": sum(one.predicted_answer is None for one in solutions),
        "answers_from_text": benchmark.extracted,
        "repeated": benchmark.repeated,
        "same_text": benchmark.same_text,
        "accuracy": float(np.mean([bool(one.is_correct) for one in solutions])),
    } | ({"tokens_per_solution": tokens} if tokens else {})


def _one(benchmark: Benchmark, config: CorrectnessConfig) -> dict[str, Any]:
    record = _counts(benchmark) | ranking(benchmark, config)
    record["by_samples"] = by_samples(benchmark.questions, config)
    whole = with_all_samples(benchmark.questions, config)
    ways = measured(benchmark.questions)
    for name in ("majority", "weighted", "best_of"):
        if name in ways:
            record |= {
                f"{name}_accuracy{end}": whole[f"{name}{end}"] for end in ("", "_low", "_high")
                if f"{name}{end}" in whole
            }
    several = record["solutions_per_question"]["max"] >= 2
    votes = several and "majority" in ways
    if votes and "similarity" in signals(benchmark):
        record["filtering"] = {"similarity": {"published": _published(benchmark, config)}}
    validation, test = benchmark.split(config.validation, config.seed)
    split = bool(validation and test)
    if not votes or not split:
        record["left_out"] = _left_out(record, several, votes, config)
    if votes and split:
        record |= _voting(benchmark, validation, test, record.get("filtering", {}), config)
    if several and split:
        record["calibration"] = {
            signal: calibrate(validation, test, signal, config) for signal in signals(benchmark)
        }
    return record


def _left_out(
    record: dict[str, Any], several: bool, votes: bool, config: CorrectnessConfig
) -> str:
    if not several:
        return "votes, filtering and stopping need several solutions per question"
    if not votes:
        return f"votes, filtering and stopping need answers; none of the {record['solutions']} " \
            "solutions has one"
    return (
        f"filtering with a chosen threshold, stopping and calibration need questions on both "
        f"sides of the split; {record['questions']} questions at validation="
        f"{config.validation:g} leave one side empty (another seed may not)"
    )


def _voting(
    benchmark: Benchmark, validation: Sequence[Question], test: Sequence[Question],
    published: dict[str, Any], config: CorrectnessConfig,
) -> dict[str, Any]:
    """Votes, stopping rules and filters on the test questions, chosen on the validation ones."""
    curve = vote_curve(test, config)
    rules = []
    for rule in stopping_rules(test, config):
        equal = at_equal_tokens(curve, rule.get("tokens_per_question", -1.0))
        rules.append(rule | ({} if equal is None else {"plain_vote_at_equal_tokens": equal}))
    found: dict[str, Any] = {"plain_votes": curve, "stopping": rules}
    temperature = None
    if "weighted" in measured(validation) & measured(test):
        temperature = fit_temperature(validation)
        found["vote_temperature"] = temperature
    found["test_votes"] = {"questions": len(test)} | with_all_samples(test, config, temperature)
    found["filtering"] = {
        signal: _filtering(validation, test, signal, curve, config) | published.get(signal, {})
        for signal in signals(benchmark)
    }
    return found


def _filtering(
    validation: Sequence[Question], test: Sequence[Question], signal: Signal,
    curve: Sequence[dict[str, float]], config: CorrectnessConfig,
) -> dict[str, Any]:
    """Every threshold on the test questions; ``best``, ``free`` and ``risk`` are chosen on the
    validation questions."""
    # Thresholds must not depend on the validation questions, or the guarantee of ``risk`` would not
    # hold; they are quantiles on the test questions, whose labels are not used.
    thresholds = threshold_grid(test, signal, config)
    seen = filter_questions(validation, thresholds, signal, config.start)
    unseen = filter_questions(test, thresholds, signal, config.start)

    def figures(column: int) -> dict[str, Any]:
        return _figures(unseen, column, thresholds[column], curve, config)

    record: dict[str, Any] = {
        "sweep": [figures(column) for column in range(len(thresholds))],
        "best": figures(choose_best(seen)),
    }
    free = choose_free(seen)
    if free is not None:
        record["free"] = figures(free)
    risky = choose_by_risk(seen, config.loss, config.confidence)
    if risky is None:
        record["risk_left_out"] = (
            f"no threshold is shown on {len(validation)} validation questions to lose at most "
            f"{config.loss:g} of the questions with confidence {config.confidence:g}, which takes "
            f"at least {questions_needed(config.loss, config.confidence)}"
        )
    else:
        lost = (unseen.accuracy[:, risky] < unseen.before - 1e-12).mean()
        record["risk"] = figures(risky) | {
            "loss": config.loss, "confidence": config.confidence, "lost": float(lost),
        }
    return record


def _figures(
    table: Filtered, column: int, threshold: float, curve: Sequence[dict[str, float]],
    config: CorrectnessConfig,
) -> dict[str, Any]:
    found = summarise(table, column, threshold, config.cost)
    read = found["reward_model_tokens"] * float(table.tokens.mean())
    net = found["tokens_per_question"] + config.cost * read
    beside = {
        "plain_vote_at_equal_tokens": at_equal_tokens(curve, found["tokens_per_question"]),
        "net_tokens_per_question": net,
        "best_of_accuracy": curve[-1].get("best_of"),
        "weighted_accuracy": curve[-1].get("weighted"),
    } | {
        f"{way}_at_equal_net_tokens": at_equal_tokens(curve, net, way)
        for way in ("majority", "weighted", "best_of")
    }
    return found | {name: value for name, value in beside.items() if value is not None}


def _published(benchmark: Benchmark, config: CorrectnessConfig) -> dict[str, Any]:
    """The published filter on all questions: a similarity below 0 drops a solution."""
    table = filter_questions(benchmark.questions, [0.0], "similarity", config.start)
    return _figures(table, 0, 0.0, vote_curve(benchmark.questions, config), config)
