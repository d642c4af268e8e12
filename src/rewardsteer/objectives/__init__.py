"""Losses of reward models, by name."""

from rewardsteer.registry import Registry

OBJECTIVES = Registry(
    "objective",
    {
        "bradley_terry": "rewardsteer.objectives.bradley_terry:build",
        "partial": "rewardsteer.objectives.partial:build",
        "max_constraint": "rewardsteer.objectives.max_constraint:build",
        "goal_contrastive": "rewardsteer.objectives.goal_contrastive:build",
        "autoregressive": "rewardsteer.objectives.autoregressive:build",
        "regression": "rewardsteer.objectives.regression:build",
        "listwise": "rewardsteer.objectives.listwise:build",
        "labels": "rewardsteer.objectives.labels:build",
        "outcome": "rewardsteer.objectives.outcome:build",
        "distillation": "rewardsteer.objectives.distillation:build",
        "process": "rewardsteer.objectives.process:build",
    },
)
# Objectives after which rewards are log-probabilities, for cards that do not say what theirs are.
LOG_PROBABILITY = frozenset({"autoregressive"})
