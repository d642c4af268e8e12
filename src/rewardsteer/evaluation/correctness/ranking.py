"""How well values separate correct from incorrect solutions: AUROC, complete and on prefixes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.evaluation.correctness.config import CorrectnessConfig, Signal
from rewardsteer.evaluation.correctness.controls import controls
from rewardsteer.evaluation.correctness.scored import Benchmark, signals, token_values
from rewardsteer.evaluation.distributions import by_length, histogram
from rewardsteer.evaluation.statistics import (
    auroc,
    auroc_difference,
    auroc_interval,
    auroc_within_interval,
)
from rewardsteer.records import Solution

_ROC_POINTS = 200


def prefix_index(length: int, share: float) -> int:
    """Index of the token at a percentile of a solution, as published: max(⌊n·p⌋ − 1, 0)."""
    # 1e-9, since 90 · 0.7 is just below 63 in floating point.
    return max(int(length * share + 1e-9) - 1, 0)


def prefix_values(solutions: Sequence[Solution], signal: Signal, share: float) -> list[float]:
    """The signal at one percentile of every solution; at 1 the complete solution's reward."""
    values = []
    for solution in solutions:
        if share == 1.0 and signal == "reward" and solution.reward is not None:
            values.append(solution.reward)
        else:
            series = token_values(solution, signal)
            values.append(float(series[prefix_index(len(series), share)]))
    return values


def ranking(benchmark: Benchmark, config: CorrectnessConfig) -> dict[str, Any]:
    """AUROC with intervals over questions, and average precision: over all solutions, by model, by
    question and by prefix.

    Without a correct and an incorrect solution the AUROC is undefined: ``undefined`` is set and
    the figures are left out.
    """
    solutions = benchmark.scored
    labels = [bool(one.is_correct) for one in solutions]
    if not labels:
        return {"undefined": "no labelled solution has a reward: no AUROC, best of k or weighted "
                             "vote"}
    if len(set(labels)) < 2:
        kind = "right" if labels and labels[0] else "wrong"
        return {"undefined": f"all {len(labels)} scored solutions are {kind}: no AUROC"}
    groups = [one.question_id for one in solutions]
    found = signals(benchmark)
    # The reward of a complete solution is there without values of its tokens.
    whole: list[Signal] = ["reward", *(signal for signal in found if signal != "reward")]
    figures: dict[str, Any] = {}
    for signal in whole:
        values = prefix_values(solutions, signal, 1.0)
        tail = "" if signal == "reward" else "_similarity"
        figures |= {
            **auroc_interval(labels, values, groups=groups).figures(f"auroc{tail}"),
            f"average_precision{tail}": _average_precision(labels, values),
            f"auroc_by_model{tail}": _by_model(solutions, labels, values),
            **_per_question(groups, labels, values, tail),
        }
    figures["controls"] = controls(solutions, prefix_values(solutions, "reward", 1.0), config)
    figures["auroc_by_percentile"] = {
        signal: _by_percentile(solutions, labels, groups, signal, config) for signal in found
    }
    figures["roc"] = {signal: roc_points(solutions, signal) for signal in whole}
    figures["histogram"] = {signal: _histogram(solutions, labels, signal) for signal in whole}
    figures["reward_by_length"] = {
        name: by_length([one.token_count for one in some], prefix_values(some, "reward", 1.0))
        for name, some in _by_label(solutions).items()
    }
    return figures


def compare_rankings(
    benchmark: Benchmark, baseline: Benchmark, config: CorrectnessConfig
) -> dict[str, Any]:
    """AUROC on complete solutions minus that of the baseline's reward, paired by solution.

    Returns:
        figures by signal, and the number of solutions that both scored.
    """
    theirs = {(s.question_id, s.sample, s.model): s for s in baseline.scored}
    pairs = [
        (ours, theirs[key]) for ours in benchmark.scored
        if (key := (ours.question_id, ours.sample, ours.model)) in theirs
    ]
    labels = [bool(ours.is_correct) for ours, _ in pairs]
    if len(set(labels)) < 2:
        return {"solutions": len(pairs)}
    groups = [ours.question_id for ours, _ in pairs]
    base = prefix_values([other for _, other in pairs], "reward", 1.0)
    figures: dict[str, Any] = {"solutions": len(pairs)}
    for signal in {"reward": None} | dict.fromkeys(signals(benchmark)):
        values = prefix_values([ours for ours, _ in pairs], signal, 1.0)
        gain = auroc_difference(labels, values, base, groups=groups)
        figures[signal] = {"gain": gain.value, **gain.ends()}
    return figures


def roc_points(solutions: Sequence[Solution], signal: Signal) -> dict[str, list[float]]:
    """False and true positive rates (``wrong``, ``right``) at falling thresholds, thinned for a
    plot."""
    from sklearn.metrics import roc_curve

    labels = [bool(one.is_correct) for one in solutions]
    false, true, _ = roc_curve(labels, prefix_values(solutions, signal, 1.0))
    # Points are spaced evenly in the sum of both rates, which grows along the curve.
    along = np.searchsorted(false + true, np.linspace(0, 2, _ROC_POINTS))
    kept = np.unique(np.minimum(along, len(false) - 1))
    return {"wrong": false[kept].round(5).tolist(), "right": true[kept].round(5).tolist()}


def _by_label(solutions: Sequence[Solution]) -> dict[str, list[Solution]]:
    return {
        name: [one for one in solutions if bool(one.is_correct) is label]
        for name, label in (("right", True), ("wrong", False))
    }


def _histogram(
    solutions: Sequence[Solution], labels: Sequence[bool], signal: Signal
) -> dict[str, Any]:
    values = np.asarray(prefix_values(solutions, signal, 1.0))
    right = np.asarray(labels)
    return histogram({"right": values[right], "wrong": values[~right]})


def _average_precision(labels: Sequence[bool], values: Sequence[float]) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, values))


def _by_model(
    solutions: Sequence[Solution], labels: Sequence[bool], values: Sequence[float]
) -> dict[str, dict[str, float]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for index, solution in enumerate(solutions):
        rows[solution.model or "unknown"].append(index)
    figures = {}
    for model, indices in sorted(rows.items()):
        own = [labels[i] for i in indices]
        figure = {"count": float(len(own)), "accuracy": float(np.mean(own))}
        area = auroc(own, [values[i] for i in indices])
        figures[model] = figure if np.isnan(area) else figure | {"auroc": area}
    return figures


def _per_question(
    groups: Sequence[str], labels: Sequence[bool], values: Sequence[float], tail: str
) -> dict[str, float]:
    """Mean AUROC within questions that have correct and incorrect solutions."""
    within, count = auroc_within_interval(labels, values, groups)
    if not count:
        return {}
    return {**within.figures(f"auroc_per_question{tail}"), "questions_with_both": count}


def _by_percentile(
    solutions: Sequence[Solution], labels: Sequence[bool], groups: Sequence[str], signal: Signal,
    config: CorrectnessConfig,
) -> list[dict[str, float]]:
    figures = []
    for step in range(config.steps + 1):
        share = step / config.steps
        values = prefix_values(solutions, signal, share)
        area = auroc_interval(labels, values, groups=groups)
        figures.append({
            "percentile": share, "auroc": area.value, **area.ends(),
            **signal_and_noise(labels, values, groups),
        })
    return figures


def signal_and_noise(
    labels: Sequence[bool], values: Sequence[float], groups: Sequence[str]
) -> dict[str, float]:
    """Signal and noise of values among responses to one prompt, for a search over steps.

    Args:
        labels: whether each solution is correct.
        values: of the solutions, complete or up to a step.
        groups: the question of each.

    Returns:
        ``noise``: the standard deviation of values among solutions of one question and one label,
        pooled over all of these, each with one degree of freedom less than it has solutions.
        ``signal``: the mean over questions of the mean value of correct solutions less that of
        incorrect ones. A figure that no question gives is left out. Real differences between
        solutions of one label count as noise, so the noise is an upper estimate of the error.
    """
    cells: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {True: [], False: []})
    for label, value, group in zip(labels, values, groups, strict=True):
        cells[group][bool(label)].append(value)
    alike = [np.asarray(some) for own in cells.values() for some in own.values() if some]
    free = sum(len(some) - 1 for some in alike)
    figures: dict[str, float] = {}
    if free:
        spread = sum(float(((some - some.mean()) ** 2).sum()) for some in alike)
        figures["noise"] = float(np.sqrt(spread / free))
    gaps = [np.mean(own[True]) - np.mean(own[False]) for own in cells.values()
            if own[True] and own[False]]
    if gaps:
        figures["signal"] = float(np.mean(gaps))
    return figures
