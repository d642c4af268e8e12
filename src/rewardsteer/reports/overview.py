"""The first section of a page: the main metric of each run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.reports.results import Run
from rewardsteer.reports.sections import Section, Tile, Tiles
from rewardsteer.reports.training import series

_FEW = 2  # methods that are compared without a note on their number
_LEVEL = 0.05  # significance level of a difference
_MOST = 12  # tiles; beyond that the tables say more


def overview(runs: Sequence[Run]) -> Section | None:
    """Tiles of all runs; None without any main metric."""
    tiles = [tile for run in runs for tile in _tiles(run)]
    return Section("At a glance", "overview", [Tiles(tiles[:_MOST])]) if tiles else None


def _tiles(run: Run) -> list[Tile]:
    tiles = []
    if run.preference:
        figures = run.preference["all"]
        tiles.append(Tile(
            run.name, f"{figures['accuracy']:.1%}",
            f"accuracy on {figures['count']:,} held-out pairs"
            f"{_interval(figures, 'accuracy', '{:.1%}')}",
        ))
    for name, figures in (run.correctness or {}).items():
        tiles += _correctness(f"{run.name}, {name}", figures)
    if run.over_runs:
        tiles.append(_best(run.name, run.over_runs))
    if run.comparison and run.comparison.get("methods"):
        tiles.append(_best(run.name, run.comparison))
    if run.training and not tiles:
        _, values = series(run.training, "eval_accuracy")
        if values:
            tiles.append(Tile(
                run.name, f"{values[-1]:.1%}",
                "accuracy on held-out pairs at the end of training",
            ))
    return tiles


def _correctness(name: str, figures: Mapping[str, Any]) -> list[Tile]:
    if "auroc" not in figures:
        return []
    note = f"AUROC of the reward on {figures['solutions']:,} solutions" \
        f"{_interval(figures, 'auroc', '{:.3f}')}"
    if "auroc_similarity" in figures:
        # Both are shown: choosing the higher one would bias its interval.
        note += f"; of the similarity {figures['auroc_similarity']:.3f}" \
            f"{_interval(figures, 'auroc_similarity', '{:.3f}')}"
    return [Tile(name, f"{figures['auroc']:.3f}", note)]


def _interval(figures: Mapping[str, Any], name: str, pattern: str) -> str:
    """The ends of a figure's interval as text; "" where there is none."""
    if f"{name}_low" not in figures:
        return ""
    low, high = (pattern.format(figures[f"{name}_{end}"]) for end in ("low", "high"))
    return f" ({low} to {high})"


def _best(name: str, content: Mapping[str, Any]) -> Tile:
    """A tile of the method with the highest accuracy, or with the highest reward without one."""
    methods: Mapping[str, Mapping[str, float]] = content["methods"]
    figure = "accuracy" if all("accuracy" in one for one in methods.values()) else "reward"
    best = max(methods, key=lambda label: methods[label][figure])
    baseline = content.get("baseline", next(iter(methods)))
    value = methods[best][figure]
    note = f"{'accuracy' if figure == 'accuracy' else 'mean reward'}, {best}"
    spread = methods[best].get(f"{figure}_spread")
    if spread is not None:
        note += f", mean of {len(content['runs'])} runs (SD {spread:.3f})"
    gain = methods[best].get(f"{figure}_gain")
    low, high = (methods[best].get(f"{figure}_gain_{end}") for end in ("low", "high"))
    if gain is not None and best != baseline:
        note += f": {gain:+.3f} over {baseline}"
        note += "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
        if len(methods) > _FEW:
            note += _of_several(len(methods), methods[best].get(f"{figure}_gain_p"))
    return Tile(name, f"{value:.1%}" if figure == "accuracy" else f"{value:+.2f}", note)


def _of_several(count: int, adjusted_p: float | None) -> str:
    """A note on the highest of several gains, which is often high by chance."""
    if adjusted_p is None:
        return f"; the highest of {count}, for which the interval is not corrected"
    shown = "" if adjusted_p < _LEVEL else ", not significant"
    p_value = f"p = {adjusted_p:.3f}" if adjusted_p >= 0.001 else "p < 0.001"
    return f"; the highest of {count}, {p_value} by Holm's method for all of them{shown}"
