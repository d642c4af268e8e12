"""Votes and choices among k samples, and the rules that stop sampling early."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit

from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.scored import Question
from rewardsteer.evaluation.statistics import mean, share
from rewardsteer.evaluation.stopping import (
    Rule,
    adaptive_consistency,
    early_stopping,
    over_orders,
)
from rewardsteer.evaluation.voting import best_of_k, pass_at_k, reward_weights, vote, vote_at_k


def by_samples(questions: Sequence[Question], config: CorrectnessConfig) -> list[dict[str, float]]:
    """Accuracy of each way to use k samples (votes, best of k, pass@k), for every k that a question
    has, over the ``questions`` with k samples; with 95 % intervals (``*_low``, ``*_high``).

    A weighted vote weights each solution by the sigmoid of its reward. Votes are left out where no
    solution has an answer, best of k and the weighted vote where none has a reward.
    """
    ways = measured(questions)
    rng = np.random.default_rng(config.seed)
    figures = []
    for k in range(1, _most(questions) + 1):
        rows = [
            _one(question, k, rng, config, ways) for question in questions
            if len(question.solutions) >= k
        ]
        figures.append({"k": float(k), "questions": float(len(rows))} | _over_questions(rows))
    return figures


def with_all_samples(
    questions: Sequence[Question], config: CorrectnessConfig, temperature: float | None = None
) -> dict[str, float]:
    """Figures as in `by_samples`, with all samples of each question.

    Args:
        questions: of one benchmark.
        config: draws and seed.
        temperature: adds the vote ``tempered``, weighted by exp(reward / temperature).
    """
    ways = measured(questions)
    rng = np.random.default_rng(config.seed)
    rows = [
        _one(question, len(question.solutions), rng, config, ways) for question in questions
    ]
    if temperature is not None:
        for row, question in zip(rows, questions, strict=True):
            row["tempered"] = _tempered(question, temperature)
    return _over_questions(rows)


def measured(questions: Sequence[Question]) -> set[str]:
    """The ways to use samples for which the questions have answers and rewards."""
    solutions = [one for question in questions for one in question.solutions]
    answered = any(one.predicted_answer is not None for one in solutions)
    rewarded = any(one.reward is not None for one in solutions)
    ways = {"pass"}
    ways |= {"majority"} if answered else set()
    ways |= {"best_of"} if rewarded else set()
    return ways | ({"weighted"} if answered and rewarded else set())


def fit_temperature(questions: Sequence[Question]) -> float:
    """The temperature T for the highest accuracy of votes weighted by exp(reward / T), among 13
    from a tenth to ten times the standard deviation of the rewards; of equals the highest, which is
    nearest to the majority vote."""
    rewards = [
        one.reward for question in questions for one in question.solutions
        if one.reward is not None
    ]
    scale = float(np.std(rewards)) or 1.0
    grid = [scale * float(step) for step in np.geomspace(0.1, 10, 13)]
    found = [np.mean([_tempered(question, one) for question in questions]) for one in grid]
    return max(zip(found, grid, strict=True), key=lambda one: (round(one[0], 12), one[1]))[1]


def _tempered(question: Question, temperature: float) -> float:
    rewards = np.array(question.rewards)
    top = np.nanmax(rewards) if not np.isnan(rewards).all() else 0.0
    weights = reward_weights(np.exp((rewards - top) / temperature).tolist())
    return vote(question.answers, question.correct, weights)


def _most(questions: Sequence[Question]) -> int:
    return max(len(question.solutions) for question in questions)


def _over_questions(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in rows[0]:
        figures |= share([row[name] for row in rows]).figures(name)
    return figures


def _one(
    question: Question, k: int, rng: np.random.Generator, config: CorrectnessConfig,
    ways: set[str],
) -> dict[str, float]:
    answers, correct, rewards = question.answers, question.correct, question.rewards
    found = {"pass": pass_at_k(correct, k)}
    if "best_of" in ways:
        found["best_of"] = best_of_k(rewards, correct, k)
    if "majority" in ways:
        found["majority"] = vote_at_k(answers, correct, k, rng=rng, draws=config.draws)
    if "weighted" in ways:
        weights = reward_weights(expit(np.array(rewards)).tolist())
        found["weighted"] = vote_at_k(
            answers, correct, k, rng=rng, draws=config.draws, weights=weights
        )
    return found


def stopping_rules(
    questions: Sequence[Question], config: CorrectnessConfig
) -> list[dict[str, Any]]:
    """Accuracy and tokens per question of rules that stop sampling, over random sample orders."""
    rules: list[tuple[str, Rule]] = [
        (f"ESC, window {window}", partial(early_stopping, window=window))
        for window in config.windows
    ]
    rules += [
        (f"adaptive consistency, {level:g}", partial(adaptive_consistency, threshold=level))
        for level in config.adaptive
    ]
    figures = []
    for name, rule in rules:
        rng = np.random.default_rng(config.seed)
        results = np.array([
            over_orders(
                rule, question.answers, question.correct, question.tokens,
                orders=config.orders, rng=rng,
            )
            for question in questions
        ])
        accuracy, samples, tokens = results.T
        figures.append({
            "rule": name, **share(accuracy).figures("accuracy"), "samples": float(samples.mean()),
            **(mean(tokens).figures("tokens_per_question") if tokens.any() else {}),
        })
    return figures


def vote_curve(questions: Sequence[Question], config: CorrectnessConfig) -> list[dict[str, float]]:
    """Accuracy and tokens of each way to use k samples, for every k; a question with fewer samples
    uses all of them.

    ``tokens_per_question`` counts generated tokens. ``net_tokens_per_question`` adds those that the
    reward model processed, each prompt once per solution, at ``config.cost`` per token. Both are
    left out where no solution's tokens are known.
    """
    ways = measured(questions)
    counted = any(sum(question.tokens) for question in questions)
    rng = np.random.default_rng(config.seed)
    figures = []
    for k in range(1, _most(questions) + 1):
        sizes = [min(k, len(question.solutions)) for question in questions]
        rows = [
            _one(question, size, rng, config, ways)
            for question, size in zip(questions, sizes, strict=True)
        ]
        point = {"k": float(k)} | {
            name: float(np.mean([row[name] for row in rows])) for name in rows[0]
        }
        if counted:
            tokens, read = (
                float(np.mean([
                    size * np.mean(costs(question))
                    for question, size in zip(questions, sizes, strict=True)
                ]))
                for costs in (lambda question: question.tokens, _read)
            )
            point["tokens_per_question"] = tokens
            point["net_tokens_per_question"] = tokens + config.cost * read
        figures.append(point)
    return figures


def _read(question: Question) -> list[int]:
    return [
        0 if one.reward is None else one.token_count + one.prompt_tokens
        for one in question.solutions
    ]


def at_equal_tokens(
    curve: Sequence[dict[str, float]], tokens: float, way: str = "majority"
) -> float | None:
    """Accuracy of a way to use samples at a number of tokens per question, interpolated linearly
    between two k.

    The majority vote costs generated tokens alone; other ways include the reward model's tokens.
    None outside the range of the samples' costs: votes with more samples were not measured.
    """
    name = "tokens_per_question" if way == "majority" else "net_tokens_per_question"
    if way not in curve[0] or name not in curve[0]:
        return None
    costs = [point[name] for point in curve]
    slack = 1e-9 * costs[-1]
    if not costs[0] - slack <= tokens <= costs[-1] + slack:
        return None
    return float(np.interp(tokens, costs, [point[way] for point in curve]))
