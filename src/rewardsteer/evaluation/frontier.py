"""Metric against cost, for methods of several comparisons on the same prompts.

Folders with the same method are runs of it (seeds of training or sampling). A run is paired with
the baseline of its own folder, prompt by prompt. Intervals are over runs and prompts where there
are several runs, else over prompts.

Shapes: S runs, P prompts.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.equal_cost import at_equal, steps
from rewardsteer.evaluation.frontier_methods import COSTS, Method, over_all
from rewardsteer.evaluation.statistics import holm, over


def frontier(
    methods: Mapping[str, Method], baseline: str, *, metrics: Sequence[str] = (),
    costs: Sequence[str] = (), controls: Sequence[str] = (),
    at: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Figures of methods by value and cost.

    Args:
        methods, baseline: from `frontier_methods.load_methods`.
        metrics: names of metrics; default: all.
        costs: names in `COSTS`; default: those measured for every method.
        controls: labels of controls that a useful method must beat (an untrained head, a low
            temperature, a random gate).
        at: cost → budgets at which sweeps are interpolated; see `equal_cost.at_equal`.

    Returns:
        ``methods``: figures by label; ``pareto``: by metric and cost, the labels that no other
        beats in both; ``steps``: by metric and cost, each method against the best other one that
        costs no more; ``equal``: rows at given budgets.

    Raises:
        ConfigError: an unknown metric, cost or control.
    """
    known = list(methods[baseline].values)
    shared = [name for name in COSTS if all(name in one.costs for one in methods.values())]
    metrics, costs = list(metrics or known), list(costs or shared)
    _check(metrics, known, "metric")
    _check([*costs, *at], shared, "cost")
    _check(controls, list(methods), "control")
    count = methods[baseline].values[known[0]].shape[1]
    runs = max(len(one.runs) for one in methods.values())
    return {
        "baseline": baseline, "controls": list(controls), "metrics": metrics, "costs": costs,
        "intervals": over(count, "prompt") + (f" and {runs} runs" if runs > 1 else ""),
        "methods": _figures(methods, baseline, metrics),
        **steps(methods, metrics, costs, controls),
        "equal": [
            row for name, budgets in at.items() for budget in budgets for metric in metrics
            for row in at_equal(methods, baseline, metric, name, budget)
        ],
    }


def _check(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"There is no {what} {name!r} that all methods have; there are "
                f"{', '.join(known) or 'none'}."
            )


def _figures(
    methods: Mapping[str, Method], baseline: str, metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        label: {"runs": len(one.runs), "sweep": one.sweep, "weight": one.weight}
        | {name: float(cost.mean()) for name, cost in one.costs.items()}
        for label, one in methods.items()
    }
    for metric in metrics:
        gains = {}
        for label, one in methods.items():
            found[label] |= over_all(one.values[metric], of_share=True).figures(metric)
            if label != baseline:
                gains[label] = over_all(one.values[metric] - one.baseline[metric])
        adjusted = holm([gain.p_value for gain in gains.values()])
        for (label, gain), p_value in zip(gains.items(), adjusted, strict=True):
            found[label] |= gain._replace(p_value=p_value).figures(f"{metric}_gain")
    return found
