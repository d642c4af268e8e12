"""Votes and choices among k samples, and the rules that stop sampling early."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit

from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.scored import Question
from rewardsteer.evaluation.statistics import share
from rewardsteer.evaluation.stopping import (
    Rule,
    adaptive_consistency,
    early_stopping,
    over_orders,
)
from rewardsteer.evaluation.voting import best_of_k, pass_at_k, reward_weights, vote_at_k


def by_samples(questions: Sequence[Question], config: CorrectnessConfig) -> list[dict[str, float]]:
    """Accuracy of each way to use k samples, k from 1 to the most that a question has, over the
    ``questions`` that have k; each with a 95 % interval over them (``*_low``, ``*_high``).

    A weighted vote weighs each solution by the sigmoid of its reward.
    """
    most = max(len(question.solutions) for question in questions)
    rng = np.random.default_rng(config.seed)
    figures = []
    for k in range(1, most + 1):
        rows = [
            _one(question, k, rng, config) for question in questions
            if len(question.solutions) >= k
        ]
        figures.append({"k": float(k), "questions": float(len(rows))} | _over_questions(rows))
    return figures


def with_all_samples(
    questions: Sequence[Question], config: CorrectnessConfig
) -> dict[str, float]:
    """As `by_samples`, each question with all the samples that it has."""
    rng = np.random.default_rng(config.seed)
    return _over_questions([
        _one(question, len(question.solutions), rng, config) for question in questions
    ])


def _over_questions(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in rows[0]:
        mean = share([row[name] for row in rows])
        figures |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return figures


def _one(
    question: Question, k: int, rng: np.random.Generator, config: CorrectnessConfig
) -> dict[str, float]:
    answers, correct, rewards = question.answers, question.correct, question.rewards
    weights = reward_weights(expit(np.array(rewards)).tolist())
    return {
        "pass": pass_at_k(correct, k),
        "best_of": best_of_k(rewards, correct, k),
        "majority": vote_at_k(answers, correct, k, rng=rng, draws=config.draws),
        "weighted": vote_at_k(
            answers, correct, k, rng=rng, draws=config.draws, weights=weights
        ),
    }


def stopping_rules(
    questions: Sequence[Question], config: CorrectnessConfig
) -> list[dict[str, Any]]:
    """Accuracy and tokens a question of rules that stop sampling, over random sample orders."""
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
        accuracy, samples, tokens = results.mean(0)
        figures.append({
            "rule": name, "accuracy": float(accuracy), "samples": float(samples),
            "tokens_per_question": float(tokens),
        })
    return figures


def plain_curve(questions: Sequence[Question], config: CorrectnessConfig) -> list[dict[str, float]]:
    """Accuracy and tokens a question of the plain vote with k samples, every k; a question that has
    fewer votes with those it has."""
    most = max(len(question.solutions) for question in questions)
    rng = np.random.default_rng(config.seed)
    figures = []
    for k in range(1, most + 1):
        accuracy = [
            vote_at_k(
                question.answers, question.correct, min(k, len(question.solutions)), rng=rng,
                draws=config.draws,
            )
            for question in questions
        ]
        tokens = [
            min(k, len(question.solutions)) * float(np.mean(question.tokens))
            for question in questions
        ]
        figures.append({
            "k": float(k), "accuracy": float(np.mean(accuracy)),
            "tokens_per_question": float(np.mean(tokens)),
        })
    return figures


def at_equal_tokens(curve: Sequence[dict[str, float]], tokens: float) -> float:
    """Accuracy of the plain vote at a number of tokens a question, between two k by a line."""
    return float(np.interp(
        tokens, [point["tokens_per_question"] for point in curve],
        [point["accuracy"] for point in curve],
    ))
