"""The section on several runs: figures of ``evaluate generation --seeds`` and ``evaluate runs``."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.reports.finding import names_of
from rewardsteer.reports.overoptimization import SECOND, weight_blocks
from rewardsteer.reports.plots import intervals
from rewardsteer.reports.plotted import Spread
from rewardsteer.reports.results import Run
from rewardsteer.reports.sections import Block, Figure, Figures, Prose, Section, Table, run_by_run
from rewardsteer.reports.tables import OWN_JUDGE, SEED_COLUMNS, SEED_FURTHER, seed_rows

Content = Mapping[str, Any]

_FEWEST = 3  # runs whose spread can be relied on
_METRICS = {"accuracy": "accuracy", "reward": "mean reward", SECOND: "second judge's reward"}


def over_runs_section(runs: Sequence[Run]) -> Section | None:
    """Figures over comparisons repeated with other seeds; None without any."""
    shown = {run.name: run.over_runs for run in runs if run.over_runs}
    return Section("Several runs", "runs", run_by_run(shown, _of_one)) if shown else None


def _of_one(content: Content) -> list[Block]:
    methods, baseline = content["methods"], content["baseline"]
    count, marked = len(content["runs"]), content.get("judged_by_guide", ())
    few = "" if count >= _FEWEST else f" A reliable interval needs at least {_FEWEST} runs."
    return [
        Prose(
            f"The same methods on the same prompts in {count} runs, which differ by a seed of "
            f"sampling or of training; {content['intervals']}.{few}"
        ),
        Figures([
            figure for name, label in _METRICS.items()
            if any(name in one for one in methods.values())
            for figure in _figures(content, name, label)
        ]),
        Table(
            "Means over runs. SD is the standard deviation between the runs. The gain over "
            f"{baseline} is paired by run and prompt."
            + (OWN_JUDGE if marked else ""),
            SEED_COLUMNS, seed_rows(methods, marked=marked), frozenset({baseline}), SEED_FURTHER,
        ),
        *weight_blocks(content),
    ]


def _figures(content: Content, name: str, label: str) -> list[Figure]:
    """Plots of a metric and of its paired gain over the baseline, in which prompts vary less."""
    baseline, own = content["baseline"], content.get("by_run", {}).get(name, {})
    gains = {
        method: [value - base for value, base in zip(values, own[baseline], strict=True)]
        for method, values in own.items() if method != baseline
    }
    caption = (
        "The dot is the mean over runs with its 95 % interval for new runs and prompts. Each tick "
        f"below it is one run. The dashed line is {baseline}."
    )
    figures = [Figure(
        intervals(
            list(content["methods"]), {"": _spreads(content, name, own)}, x_label=label,
            reference=content["methods"][baseline].get(name),
        ),
        label.capitalize(), caption,
    )]
    spreads = _spreads(content, f"{name}_gain", gains)
    if spreads:
        figures.append(Figure(
            intervals(list(spreads), {"": spreads}, x_label=f"gain in {label}", reference=0.0),
            f"Gain in {label}", caption,
        ))
    return figures


def _spreads(
    content: Content, name: str, values: Mapping[str, Sequence[float]]
) -> dict[str, Spread]:
    runs = names_of(content["runs"])
    return {
        method: Spread.of(
            figures, name, deviation=figures.get(f"{name}_spread"),
            runs=dict(zip(runs, values[method], strict=True)) if method in values else {},
        )
        for method, figures in content["methods"].items() if name in figures
    }
