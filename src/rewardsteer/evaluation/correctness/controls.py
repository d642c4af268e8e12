"""Control scores that ignore a solution's text: its source, its length, chance.

A reward that ranks no better than these, or not better than chance within one source, may have
learned a shortcut.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.data.balancing import FOLDS, fold_of
from rewardsteer.data.solutions import source_of
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.data_notes import control_note, equal_scores
from rewardsteer.evaluation.statistics import (
    Interval,
    auroc,
    auroc_difference,
    auroc_interval,
    auroc_within_interval,
    share,
)
from rewardsteer.evaluation.voting import best_of_k
from rewardsteer.objectives.agreement import spearman
from rewardsteer.records import Solution


def controls(
    solutions: Sequence[Solution], rewards: Sequence[float], config: CorrectnessConfig
) -> dict[str, Any]:
    """AUROCs of controls with intervals over questions, and the reward's correlation with them.

    Args:
        solutions: labelled solutions, with both labels among them.
        rewards: one per solution.
        config: draws and seed.

    Returns:
        ``random``, ``length`` (tokens) and, where there are several sources, ``source`` (the share
        of correct solutions that the source has on other questions), each with ``auroc``, ``low``,
        ``high`` and ``best_of``, the accuracy of each question's highest solution (ties are split);
        ``within_source`` and ``within_question``, the AUROC of the reward among pairs of
        one source or question, with its interval (``*_low``, ``*_high``); ``rank_correlation`` of
        the reward with length and source; and ``notes``, sentences on what these show.
    """
    labels = [bool(one.is_correct) for one in solutions]
    groups = [one.question_id for one in solutions]
    sources = [source_of(one) for one in solutions]
    scores: dict[str, np.ndarray] = {
        "random": np.random.default_rng(config.seed).random(len(labels)),
        "length": np.array([float(one.token_count) for one in solutions]),
    }
    if len(set(sources)) > 1:
        scores["source"] = source_scores(sources, labels, groups)
    found: dict[str, Any] = {}
    alone = {
        name: auroc_interval(labels, values, groups=groups) for name, values in scores.items()
    }
    for name, area in alone.items():
        found[name] = {"auroc": area.value, **area.ends()}
    for name, values in scores.items():
        found[name] |= _best_of(values, labels, groups)
    found["rank_correlation"] = {
        name: correlation for name, values in scores.items() if name != "random"
        if not np.isnan(correlation := spearman(rewards, values))
    }
    within = auroc_interval(labels, rewards, groups=groups, within=sources)
    if "source" in scores:
        found |= within.figures("within_source")
    if len(set(groups)) > 1:
        found |= auroc_within_interval(labels, rewards, groups, by_pairs=True)[0].figures(
            "within_question"
        )
    found["notes"] = _notes(alone, within, labels, rewards, scores, groups)
    return found


def _best_of(
    values: np.ndarray, labels: Sequence[bool], groups: Sequence[str]
) -> dict[str, float]:
    rows: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        rows[group].append(index)
    chosen = share([
        best_of_k([values[i] for i in own], [labels[i] for i in own], len(own))
        for own in rows.values()
    ])
    return chosen.figures("best_of")


def source_scores(
    sources: Sequence[str], labels: Sequence[bool], groups: Sequence[str]
) -> np.ndarray:
    """For each solution, the share of its source's solutions on other questions that are correct
    ``[N]``, in five folds by question; one half for a source without solutions there."""
    folds = np.array([fold_of(group) for group in groups])
    _, places = np.unique(np.asarray(sources), return_inverse=True)
    right = np.asarray(labels, dtype=float)
    values = np.empty(len(right))
    for fold in range(FOLDS):
        held = folds == fold
        counts = np.bincount(places[~held], minlength=places.max() + 1)
        sums = np.bincount(places[~held], weights=right[~held], minlength=places.max() + 1)
        share = np.divide(sums, counts, out=np.full(len(sums), 0.5), where=counts > 0)
        values[held] = share[places[held]]
    return values


def _notes(
    alone: dict[str, Interval], within: Interval, labels: Sequence[bool],
    rewards: Sequence[float], scores: dict[str, np.ndarray], groups: Sequence[str],
) -> list[str]:
    """Sentences on the controls that the reward does not beat."""
    notes: list[str | None] = [*equal_scores(rewards)]
    own = auroc(labels, rewards)
    for name in ("source", "length"):
        if name in scores:
            gain = auroc_difference(labels, rewards, scores[name], groups=groups)
            notes.append(control_note(
                name, "AUROC", alone[name], own, gain,
                within if name == "source" and not np.isnan(within.value) else None,
            ))
    return [one for one in notes if one is not None]
