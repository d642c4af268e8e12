"""Tables of ``evaluate benchmark``: figures with controls, differences of models, means of runs."""

from collections.abc import Mapping, Sequence

from rewardsteer.evaluation.statistics import Gain, SeedFigure
from rewardsteer.reports.sections import Block, Section, Table
from rewardsteer.reports.tables import NOTHING, number

Figures = Mapping[str, Mapping[str, float]]
_OWN = ("score", "low", "high", "questions")


def figure_rows(models: Mapping[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Columns and one row per figure, a column per model and control."""
    first = next(iter(models.values()))
    controls = [key for key in next(iter(first.values()), {}) if key not in _OWN]
    cells = [
        [
            figure, *(_with_interval(own.get(figure)) for own in models.values()),
            f"{first[figure]['questions']:g}",
            *(number(first[figure], control) for control in controls),
        ]
        for figure in first
    ]
    return ["figure", *models, "questions", *controls], cells


def gain_rows(
    differences: Mapping[str, Mapping[str, Gain]], models: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Columns and one row per figure: each model's difference to the first, with Holm's p-value."""
    cells = [
        [figure, *(_gain(gains.get(model)) for model in models)]
        for figure, gains in differences.items()
    ]
    return ["figure", *models], cells


def run_rows(means: Mapping[str, SeedFigure]) -> tuple[list[str], list[list[str]]]:
    """Columns and one row per figure: its mean over runs, their spread and the two-level interval.
    """
    cells = [
        [
            figure, f"{one.value:.3f}",
            f"{one.spread:.3f}" if one.spread == one.spread else NOTHING,
            NOTHING if one.low != one.low else f"{one.low:.3f} – {one.high:.3f}",
        ]
        for figure, one in means.items()
    ]
    return ["figure", "mean over runs", "standard deviation", "95 %, runs and questions"], cells


def benchmark_section(runs: Mapping[str, Mapping[str, Mapping[str, Figures]]]) -> Section | None:
    """A table for each run and benchmark; None without any."""
    blocks: list[Block] = [
        Table(
            f"{run}, {name}: score of each model with its 95 % interval, and of controls that "
            "do not use the content of the responses.",
            *figure_rows(models),
        )
        for run, benchmarks in runs.items() for name, models in benchmarks.items()
    ]
    return Section("Public benchmarks", "benchmarks", blocks) if blocks else None


def _with_interval(row: Mapping[str, float] | None) -> str:
    if row is None:
        return NOTHING
    if "low" not in row:
        return f"{row['score']:.3f}"
    return f"{row['score']:.3f} ({row['low']:.3f} – {row['high']:.3f})"


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return NOTHING
    value, low, high = gain.interval
    if low != low:
        return f"{value:+.3f}"
    return f"{value:+.3f} ({low:+.3f} – {high:+.3f}), p {gain.adjusted_p:.3f}"

