"""The demo's comparison of methods; their weights are chosen on other questions."""

import math
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.arithmetic import is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.world import (
    TEMPLATE,
    Samples,
    draw_questions,
    known_questions,
    longest_solution,
)
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.entries import read_records
from rewardsteer.evaluation.generation import Entry, Judge, compare
from rewardsteer.evaluation.statistics import auroc_interval, share
from rewardsteer.goals.files import load_goal
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import file_name

Figures = dict[str, dict[str, float]]

# Row of the table → the reward model that guides and the decoding method.
GUIDED = {
    "args": ("plain", "args"),
    "pargs": ("pargs", "pargs"),
    "genarm": ("genarm", "genarm"),
    "farma": ("farma", "farma"),
    "farma (zeros)": ("farma_zeros", "farma"),
}
UNTRAINED = "farma (untrained)"


def judge_samples(
    scorers: Mapping[str, Scorer], fresh: Samples, config: DemoConfig
) -> dict[str, dict[str, float]]:
    """AUROC of each reward model on new solutions of the policy, labelled by the checker, and
    ``auroc_new`` on those of questions that are not known (`known_questions`)."""
    known, figures = known_questions(config), {}
    new = [i for i, question in enumerate(fresh.questions) if question not in known]
    labels = [fresh.correct[i] for i in new]
    for name, scorer in scorers.items():
        rewards = scorer.score(fresh.questions, fresh.solutions, batch_size=250)
        figures[name] = {
            **auroc_interval(fresh.correct, rewards).figures("auroc"),
            **auroc_interval(labels, rewards[new]).figures("auroc_new"),
        }
    return figures


def compare_methods(
    policy: Any, tokenizer: Any, scorers: Mapping[str, Scorer], config: DemoConfig, out: Path, *,
    goal_threshold: float, announce: Callable[[str], None],
) -> tuple[Figures, Figures, dict[str, float]]:
    """Figures per method, those at equal token budgets, and the weight chosen for each guided one
    (for ``cards`` its reward target).

    The budget is the number of tokens that best-of-n processes per question.

    Weights are chosen by the mean reward of the Bradley-Terry model on the tuning questions, which
    are not those of the comparison. The untrained FaRMA head gets the weight of the trained one.
    The goal filter drops below ``goal_threshold``, which was chosen on labels of other questions.
    """
    judge = Judge(
        scorers["plain"],
        {"accuracy": lambda generation: is_correct(generation.prompt, generation.completion)},
    )

    def run(
        entries: list[Entry], stream: str, count: int, budget: Budget | None = None
    ) -> Figures:
        questions = draw_questions(count, config, stream)
        requests = [Request(id=f"{stream}/{i}", prompt=q) for i, q in enumerate(questions)]
        folder = out / (stream if budget is None else "budget")
        figures = compare(
            entries, policy, tokenizer, requests, judge, folder, template=TEMPLATE, budget=budget,
            known=None if budget is None else out / stream, announce=announce,
        )
        return {
            label: one | _on_new_questions(folder / file_name(label), known)
            for label, one in figures.items()
        }

    weights, known = {}, known_questions(config)
    for label in GUIDED:
        tried = run(
            [_guided(f"{label} {weight:g}", label, scorers, weight, config)
             for weight in config.weights],
            "tuning", config.tuning_prompts,
        )
        rewards = [figures["reward"] for figures in tried.values()]
        weights[label] = config.weights[rewards.index(max(rewards))]
    plain = run([Entry("none", _settings(config))], "tuning", config.tuning_prompts)["none"]
    spread = plain["reward_stderr"] * math.sqrt(plain["count"])
    targets = [plain["reward"] + above * spread for above in (0.0, 1.0)]
    tried = run(
        [_cards(f"cards {target:.3g}", scorers, target, config) for target in targets],
        "tuning", config.tuning_prompts,
    )
    rewards = [figures["reward"] for figures in tried.values()]
    weights["cards"] = targets[rewards.index(max(rewards))]
    entries = _entries(scorers, weights, goal_threshold, config)
    methods = run(entries, "test", config.test_prompts)
    budget = Budget("tokens", methods["best_of_n"]["equivalent_tokens"])
    announce(f"the same, with {budget.per_prompt:.0f} tokens per question for each")
    sampled = [entry for entry in entries if not entry.label.startswith("none ")]
    return methods, run(sampled, "test", config.test_prompts, budget), weights


def _on_new_questions(place: Path, known: Set[str]) -> dict[str, float]:
    """``accuracy_new`` with its interval, over ``new_questions`` questions that are not known."""
    values = [
        one.metrics["accuracy"] for one in read_records(place).values()
        if one.generation.prompt not in known
    ]
    return {"new_questions": len(values), **share(values).figures("accuracy_new")}


def _entries(
    scorers: Mapping[str, Scorer], weights: Mapping[str, float], goal_threshold: float,
    config: DemoConfig,
) -> list[Entry]:
    """The rows of the comparison."""
    return [
        Entry("none", _settings(config)),
        Entry("none T=0.5", _settings(config, temperature=0.5)),
        Entry("none greedy", _settings(config, mode="greedy")),
        Entry(
            "best_of_n", _settings(config, method="best_of_n", n=config.best_of),
            scorers["plain"],
        ),
        *(_guided(label, label, scorers, weights[label], config) for label in GUIDED),
        _cards("cards", scorers, weights["cards"], config),
        Entry(
            "speculative_rejection",
            _settings(
                config, method="speculative_rejection", n=config.speculative, decision_tokens=4
            ),
            scorers["plain"],
        ),
        Entry(
            "goal_filter",
            _settings(
                config, method="goal_filter", n=config.best_of, drop_start=0,
                drop_threshold=goal_threshold,
            ),
            scorers["goal"], load_goal(Path(scorers["goal"].name)),
        ),
        Entry(
            UNTRAINED, _settings(config, method="farma", weight=weights["farma"]),
            scorers["farma_untrained"],
        ),
    ]


def _guided(
    name: str, label: str, scorers: Mapping[str, Scorer], weight: float, config: DemoConfig
) -> Entry:
    model, method = GUIDED[label]
    return Entry(name, _settings(config, method=method, weight=weight), scorers[model])


def _cards(label: str, scorers: Mapping[str, Scorer], target: float, config: DemoConfig) -> Entry:
    # Segments end where the policy is undecided between a correct fact and its flawed form.
    settings = _settings(
        config, method="cards", reward_target=target, entropy_threshold=0.5, segment_min=1,
        max_rejections=8,
    )
    return Entry(label, settings, scorers["plain"])


def _settings(config: DemoConfig, **options: Any) -> DecodingConfig:
    options.setdefault("top_k", config.candidates)
    return DecodingConfig(
        max_new_tokens=longest_solution(config), batch_size=200, seed=config.seed, **options
    )
