"""Paired comparisons at equal cost: with the best method that costs no more, and between sweeps.

Shapes: S runs, P prompts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardsteer.evaluation.frontier_methods import Method, over_all
from rewardsteer.evaluation.pareto import pareto
from rewardsteer.evaluation.statistics import holm

# Indices of runs, and their values [S, P].
_Runs = tuple[tuple[int, ...], np.ndarray]


def steps(
    methods: Mapping[str, Method], metrics: Sequence[str], costs: Sequence[str],
    controls: Sequence[str],
) -> dict[str, Any]:
    """The Pareto sets, and each method against the best other one that costs no more.

    Returns:
        ``pareto`` and ``steps`` by metric and cost. Every method but the cheapest has a step:
        ``method``, ``rival``, ``runs`` and the paired ``difference`` with its interval and a
        p-value adjusted by Holm. ``beats_controls``: whether the differences to all controls, at
        whatever cost, are positive with intervals above 0; left out without controls.
    """
    sets: dict[str, dict[str, list[str]]] = defaultdict(dict)
    rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for metric in metrics:
        worth = {label: float(one.values[metric].mean()) for label, one in methods.items()}
        for cost in costs:
            spent = {label: float(one.costs[cost].mean()) for label, one in methods.items()}
            sets[metric][cost] = pareto({label: (spent[label], worth[label]) for label in methods})
            rows[metric][cost] = _against_rivals(methods, metric, worth, spent, controls)
    return {"pareto": dict(sets), "steps": dict(rows)}


def _against_rivals(
    methods: Mapping[str, Method], metric: str, worth: Mapping[str, float],
    spent: Mapping[str, float], controls: Sequence[str],
) -> list[dict[str, Any]]:
    found, p_values = [], []
    for label, one in methods.items():
        row: dict[str, Any] = {"method": label}
        if controls and label not in controls:
            row["beats_controls"] = all(
                (gain := paired(one, methods[control], metric)) is not None and gain.low > 0
                for control in controls
            )
        rivals = [
            name for name in methods
            if name != label and spent[name] <= spent[label]
            and set(methods[name].runs) & set(one.runs)
        ]
        if rivals:
            rival = max(rivals, key=lambda name: worth[name])
            gain = paired(one, methods[rival], metric)
            assert gain is not None, "rivals share a run"
            row |= {"rival": rival, "runs": len(set(one.runs) & set(methods[rival].runs)),
                    "p": gain.p_value, **gain._replace(p_value=np.nan).figures("difference")}
            p_values.append(row["p"])
        found.append(row)
    adjusted = iter(holm(p_values))
    for row in found:
        if "p" in row:
            row["p"] = next(adjusted)
            if np.isnan(row["p"]):
                del row["p"]
    return found


def paired(one: Method, other: Method, metric: str) -> Any:
    """Mean difference of two methods over the runs with both, see `over_all`; None without such
    runs."""
    apart = _apart((one.runs, one.values[metric]), (other.runs, other.values[metric]))
    return None if apart is None else over_all(apart)


def _apart(one: _Runs, other: _Runs) -> np.ndarray | None:
    """Differences ``[S, P]`` over the runs with both; None without such runs."""
    shared = [run for run in one[0] if run in other[0]]
    if not shared:
        return None
    ours, theirs = (values[[runs.index(run) for run in shared]] for runs, values in (one, other))
    return np.asarray(ours - theirs)


def at_equal(
    methods: Mapping[str, Method], baseline: str, metric: str, cost: str, budget: float
) -> list[dict[str, Any]]:
    """Sweeps at one budget: each run's value at every prompt is interpolated linearly between the
    two weights whose costs lie around the budget.

    Args:
        methods, baseline: from `frontier_methods.load_methods`.
        metric: name of the metric.
        cost: one of `frontier_methods.COSTS`.
        budget: cost per response.

    Returns:
        a row for each sweep, by falling value: ``sweep``, ``cost``, ``budget``, ``metric``, its
        gain over the baseline with its interval (``gain``, ``gain_low``, …), and ``behind``, the
        paired difference to the first row. A sweep that does not reach the budget in every run has
        ``reach``, its lowest and highest cost, instead of figures.
    """
    curves: dict[str, list[Method]] = defaultdict(list)
    for one in methods.values():
        if one.sweep:
            curves[one.sweep].append(one)
    read, missed = {}, []
    base = {"metric": metric, "cost": cost, "budget": budget}
    for name, points in curves.items():
        values = _read_off(points, metric, cost, budget)
        if values is None:
            ends = [float(one.costs[cost].mean()) for one in points]
            missed.append({"sweep": name, **base, "reach": [min(ends), max(ends)]})
        else:
            read[name] = values
    order = sorted(read, key=lambda name: -float(read[name][1].mean()))
    rows = []
    for name in order:
        runs, gain = read[name]
        row = {"sweep": name, **base, "runs": len(runs), **over_all(gain).figures("gain")}
        apart = None if name == order[0] else _apart(read[name], read[order[0]])
        if apart is not None:
            row |= over_all(apart).figures("behind")
        rows.append(row)
    return [*rows, *missed]


def _read_off(
    points: Sequence[Method], metric: str, cost: str, budget: float
) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Runs of a sweep and its gains over the baseline ``[S, P]`` at the budget; None where a run
    does not reach it."""
    runs = [run for run in points[0].runs if all(run in one.runs for one in points)]
    found = []
    for run in runs:
        rows = sorted(
            ((float(one.costs[cost][one.runs.index(run)]), one) for one in points),
            key=lambda pair: (pair[0], pair[1].weight),
        )
        spent = [pair[0] for pair in rows]
        if not spent[0] <= budget <= spent[-1]:
            return None
        right = min(max(int(np.searchsorted(spent, budget)), 1), len(spent) - 1)
        part = (budget - spent[right - 1]) / max(spent[right] - spent[right - 1], 1e-12)
        ends = [
            one.values[metric][one.runs.index(run)] - one.baseline[metric][one.runs.index(run)]
            for _, one in rows[right - 1 : right + 1]
        ]
        found.append((1 - part) * ends[0] + part * ends[1])
    return (tuple(runs), np.array(found)) if found else None
