"""Shared code of the goal_filter runs: rules are chosen on some questions and measured on others.

Token counts are those of the policy and, with a rule, also those of the reward model, which is as
large as the policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.answers import canonical_answer, extract_answer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.strategies.early_rejection import rejection_rule
from rewardsteer.decoding.strategies.votes import winner
from rewardsteer.evaluation.budget import equivalent_tokens, relative_sizes
from rewardsteer.evaluation.statistics import paired_difference
from rewardsteer.goals.calibration import fit_calibration, save_calibration
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.outputs import read_json, write_json, write_text
from rewardsteer.quiet import quiet_libraries
from rewardsteer.records import Generation
from rewardsteer.reports.tables import markdown

Figures = dict[str, list[float]]  # accuracy, tokens, drawn: a number for each question
IsCorrect = Callable[[Generation], bool]


@dataclass(frozen=True)
class World:
    """A policy, a goal-conditioned reward model and questions."""

    policy: Any
    tokenizer: Any
    scorer: Any
    goal: GoalState
    template: Any
    base: DecodingConfig
    is_correct: IsCorrect
    validation: Sequence[Request]
    test: Sequence[Request]

    def answers(self, config: DecodingConfig, requests: Sequence[Request]) -> list[Generation]:
        scorer = self.scorer if config.method != "none" else None
        method = build_method(config, scorer, self.goal)
        return list(generate(
            self.policy, self.tokenizer, requests, method, config, template=self.template
        ))


def run(
    out: Path, seeds: Sequence[int], samples: int, build: Callable[[Path, int], World]
) -> None:
    """Measure the seeds without results and write a table over all, ``out/table.md``.

    Args:
        out: the folder of results, one folder per seed.
        seeds: the seeds to measure.
        samples: number of samples in a vote.
        build: makes the world from a folder and a seed.
    """
    quiet_libraries()
    figures = []
    for seed in seeds:
        place = out / str(seed) / "figures.json"
        if not place.exists():
            write_json(place, measure(build(place.parent, seed), samples, place.parent))
        figures.append(read_json(place))
        text = table(figures, f"plain vote, n = {samples}")
        write_text(out / "table.md", text + "\n")
        print(text, flush=True)


def measure(world: World, samples: int, out: Path) -> dict[str, Figures]:
    """Figures of all methods on the test questions; the rules' calibration goes to ``out``."""
    rules = _choose_rules(world, samples, out)
    count = sum(weight.numel() for weight in world.policy.parameters())
    sizes, figures = relative_sizes(count, world.scorer), {}
    for label, settings in compared(rules, samples).items():
        config = world.base.model_copy(update={"method": "goal_filter"} | settings)
        answers = world.answers(config, world.test)
        figures[label] = {
            "accuracy": [float(world.is_correct(one)) for one in answers],
            "tokens": [equivalent_tokens(one.cost, sizes) for one in answers],
            "drawn": [float(one.cost.lm_calls) for one in answers],
        }
        means = {name: round(float(np.mean(of)), 3) for name, of in figures[label].items()}
        print(label, means, flush=True)
    return figures


def compared(rules: Mapping[str, dict[str, Any]], samples: int) -> dict[str, dict[str, Any]]:
    """Settings by method: votes, ESC and adaptive consistency, alone and with rules."""
    rows: dict[str, dict[str, Any]] = {
        f"plain vote, n = {samples}": {"drop_rule": "none", "n": samples},
        f"plain vote, n = {2 * samples}": {"drop_rule": "none", "n": 2 * samples},
    }
    for window, n in ((4, samples), (8, 2 * samples), (samples, 3 * samples)):
        rows[f"ESC alone, window {window}, n = {n}"] = {
            "drop_rule": "none", "vote_stop": "esc", "vote_window": window, "n": n,
        }
    for confidence, n in ((0.95, samples), (0.99, 2 * samples), (0.9999, 3 * samples)):
        rows[f"adaptive consistency alone, {confidence:g}, n = {n}"] = {
            "drop_rule": "none", "vote_stop": "adaptive", "vote_confidence": confidence, "n": n,
        }
    for rule, settings in rules.items():
        rows[f"{rule}, n = {samples}"] = settings | {"n": samples}
        rows[f"{rule} + ESC, window 4"] = settings | {
            "n": samples, "vote_stop": "esc", "vote_window": 4
        }
        rows[f"{rule} + adaptive, 0.95"] = settings | {"n": samples, "vote_stop": "adaptive"}
    return rows


def _choose_rules(world: World, samples: int, out: Path) -> dict[str, dict[str, Any]]:
    several = [
        request.model_copy(update={"id": f"{request.id}/{number}"})
        for request in world.validation for number in range(samples)
    ]
    plain = world.base.model_copy(update={"method": "none"})
    drawn = world.answers(plain, several)
    scored = world.scorer.token_scores(
        [request.prompt for request in several], [one.completion for one in drawn],
        batch_size=256, goal=world.goal,
    )
    return choose_rules(
        world.base, [one.similarities for one in scored],
        [canonical_answer(extract_answer(one.completion)) for one in drawn],
        [world.is_correct(one) for one in drawn], samples, out / "calibration.json",
        fingerprint=world.scorer.fingerprint,
    )


def choose_rules(
    base: DecodingConfig, values: Sequence[np.ndarray], answers: Sequence[str | None],
    correct: Sequence[bool], samples: int, place: Path, *, fingerprint: str = "",
) -> dict[str, dict[str, Any]]:
    """Settings of each rule with the best vote on validation questions; the cheapest of equals.

    Args:
        base: the other settings.
        values, answers, correct: of every sample, question by question: the similarities of its
            tokens, its final answer, whether that is correct.
        samples: number of samples per question.
        place: the file that the calibration is written to.
        fingerprint: of the reward model.
    """
    print(f"validation samples: {np.mean(correct):.3f} correct", flush=True)
    calibration = fit_calibration(values, correct, model_fingerprint=fingerprint)
    save_calibration(calibration, place)
    quantiles = np.quantile(np.concatenate(values), np.linspace(0.02, 0.9, 45)).tolist()
    candidates = {
        "below": [{"drop_threshold": level} for level in quantiles],
        "patience": [
            {"drop_threshold": level, "drop_patience": 3} for level in quantiles
        ],
        "probability": [
            {"drop_threshold": level, "calibration": str(place)}
            for level in np.linspace(0.05, 0.9, 35).tolist()
        ],
    }
    chosen = {}
    for rule, several_settings in candidates.items():
        ranked = []
        for settings in several_settings:
            settings = {"drop_rule": rule, "drop_start": base.drop_start, **settings}
            config = base.model_copy(update=settings)
            ranked.append((
                *_replay(config, calibration, values, answers, correct, samples), settings
            ))
        chosen[rule] = max(ranked, key=lambda one: (one[0], -one[1]))[2]
    print("chosen on the validation questions:", chosen, flush=True)
    return chosen


def _replay(
    config: DecodingConfig, calibration: Any, values: Sequence[np.ndarray],
    answers: Sequence[str | None], correct: Sequence[bool], samples: int,
) -> tuple[float, float]:
    """Accuracy of the vote and tokens generated, replayed on existing samples."""
    right = tokens = 0.0
    for begin in range(0, len(values), samples):
        rows = range(begin, begin + samples)
        written = {row: _written(config, calibration, values[row]) for row in rows}
        kept = [row for row in rows if written[row] is None] or list(rows)
        right += correct[kept[winner([answers[row] for row in kept])]]
        tokens += sum(written[row] or len(values[row]) for row in rows)
    return right / (len(values) / samples), tokens


def _written(config: DecodingConfig, calibration: Any, values: np.ndarray) -> int | None:
    """Number of tokens generated until a solution is dropped; None where it is kept."""
    watch = rejection_rule(config, calibration)
    return next((i + 1 for i, value in enumerate(values) if watch and watch(float(value))), None)


def table(figures: Sequence[Mapping[str, Figures]], plain: str) -> str:
    """Markdown: means over the questions of all seeds with 95 % bootstrap intervals; gains over the
    plain vote, and over the best method without a reward model that uses no more tokens."""
    joined = {
        label: {
            name: [value for one in figures for value in one[label][name]]
            for name in ("accuracy", "tokens", "drawn")
        } for label in figures[0]
    }
    before = joined[plain]
    alone = {
        label: of for label, of in joined.items() if "alone" in label or "plain" in label
    }
    heads = [
        "method", "accuracy", "tokens a question", "generated", "not generated",
        f"gain over {plain}", "gain over the best without reward model at equal tokens",
    ]
    lines = []
    for label, of in joined.items():
        mean, tokens = np.mean(of["accuracy"]), np.mean(of["tokens"])
        level = paired_difference(of["accuracy"], [0.0] * len(of["accuracy"]))
        gain = paired_difference(of["accuracy"], before["accuracy"])
        against = ""
        if label not in alone:
            fair = [one for one in alone.values() if np.mean(one["tokens"]) <= tokens * 1.02]
            rival = max(fair, key=lambda one: np.mean(one["accuracy"]), default=None)
            if rival is not None:
                fairly = paired_difference(of["accuracy"], rival["accuracy"])
                name = next(key for key, one in alone.items() if one is rival)
                against = f"{fairly.value:+.3f} ({fairly.low:+.3f} to {fairly.high:+.3f}), {name}"
        saved = 1 - np.sum(of["drawn"]) / np.sum(before["drawn"])
        lines.append([
            label, f"{mean:.3f} ({level.low:.3f} to {level.high:.3f})", f"{tokens:.0f}",
            f"{np.mean(of['drawn']):.0f}", f"{saved:.0%}",
            f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", against,
        ])
    return markdown(heads, lines)
