"""Results over several comparisons of the same methods: sampling seeds or training runs.

    OUT/seed-S/     one comparison per seed, see `rewardsteer.evaluation.generation`
    OUT/seeds.json  ``methods``: figures over all runs; ``baseline``; ``runs``: their folders;
                    ``by_run``: by metric and method the mean of each run; ``intervals``: what they
                    are over; ``sweeps``, ``weights``, ``judged_by_guide`` as in a comparison
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import RecordsByMethod, finished_summary, records_by_method
from rewardsteer.evaluation.statistics import FEWEST, SeedFigure, holm, over, two_level
from rewardsteer.outputs import write_json

# Distance of the runs' seeds: with a budget, draws use the seeds that follow an entry's own.
_APART = 1_000_000
_OF_ONE_RUN = ("_low", "_high", "_stderr", "_gain", "_gain_p")
_ALIKE = ("sweeps", "weights", "judged_by_guide")


def compare_seeds(
    seeds: Sequence[int], entries: Sequence[Entry], policy: ComparedPolicy,
    requests: Sequence[Request], judge: Judge, out: Path, *,
    begin: Callable[[], None] = lambda: None, **options: Any,
) -> dict[str, dict[str, float]]:
    """`rewardsteer.evaluation.generation.compare` once per seed, and `over_runs` of the results.

    Args:
        seeds: different numbers; run S adds S · 1,000,000 to the entries' own seeds.
        entries: what to compare.
        policy, requests, judge, begin, options: as `compare` takes them.
        out: the folder of the results.

    Raises:
        ConfigError: fewer than two seeds, or one given twice.
    """
    check_seeds(seeds)
    folders = []
    for seed in seeds:
        own = [
            replace(entry, config=entry.config.model_copy(
                update={"seed": entry.config.seed + _APART * seed}
            ))
            for entry in entries
        ]
        folders.append(out / f"seed-{seed}")
        compare(
            own, policy, requests, judge, folders[-1],
            begin=begin if len(folders) == 1 else lambda: None, **options,
        )
    return over_runs(folders, out / "seeds.json")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ConfigError` unless there are several different seeds, none negative."""
    if len(seeds) < 2 or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError(
            "Expected two or more different seeds of 0 and more, got "
            f"{', '.join(map(str, seeds)) or 'none'}."
        )


def over_runs(folders: Sequence[Path], place: Path) -> dict[str, dict[str, float]]:
    """Figures by method over finished comparisons of the same methods on the same prompts, which
    are written to ``place``.

    Each metric has its mean over runs and prompts, ``*_spread`` (the standard deviation of the
    runs' means) and a 95 % interval for new runs and prompts (`two_level`); so has its gain over
    the baseline, with ``*_gain_p`` adjusted by Holm for the number of methods. Other figures are
    means over runs.

    Raises:
        ConfigError: fewer than two folders.
        DataError: a folder holds no comparison, or runs differ in methods, baseline or prompts.
    """
    if len(set(folders)) < 2:
        raise ConfigError("Expected the folders of two or more runs to take together.")
    summaries = [finished_summary(folder) for folder in folders]
    runs = [records_by_method(*one) for one in zip(folders, summaries, strict=True)]
    _check_alike(folders, summaries, runs)
    baseline = summaries[0]["baseline"]
    figures = {
        label: _means([summary["methods"][label] for summary in summaries]) for label in runs[0]
    }
    by_run: dict[str, dict[str, list[float]]] = {}
    for metric in runs[0][baseline][0].metrics:
        values = {
            label: np.array([[one.metrics[metric] for one in run[label]] for run in runs])
            for label in runs[0]
        }
        by_run[metric] = {label: table.mean(axis=1).tolist() for label, table in values.items()}
        for label, table in values.items():
            binary = set(np.unique(table).tolist()) <= {0.0, 1.0}
            figures[label] |= two_level(table, bounded=binary).figures(metric)
        for label, gain in _gains(values, baseline).items():
            figures[label] |= gain.figures(f"{metric}_gain")
    prompts = len(runs[0][baseline])
    write_json(place, {
        "methods": figures, "baseline": baseline, "runs": [str(folder) for folder in folders],
        "by_run": by_run, **{name: summaries[0][name] for name in _ALIKE if name in summaries[0]},
        "intervals": over(prompts, "prompt") + (
            f" and {len(folders)} runs" if prompts >= FEWEST else ""
        ),
    })
    return figures


def _check_alike(
    folders: Sequence[Path], summaries: Sequence[Mapping[str, Any]],
    runs: Sequence[RecordsByMethod],
) -> None:
    def prompts(run: RecordsByMethod) -> dict[str, list[tuple[str, str]]]:
        return {
            label: [(one.generation.id, one.generation.prompt) for one in records]
            for label, records in run.items()
        }

    for folder, summary, run in zip(folders, summaries, runs, strict=True):
        for what, own, first in (
            ("methods", list(run), list(runs[0])),
            ("baseline", summary["baseline"], summaries[0]["baseline"]),
            ("prompts", prompts(run), prompts(runs[0])),
        ):
            if own != first:
                raise DataError(
                    f"{folder} and {folders[0]} differ in their {what}; runs are taken together "
                    "where only the seed or the trained model differs."
                )


def _means(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over runs of all figures but the intervals of single runs."""
    return {
        name: float(np.mean([one[name] for one in summaries]))
        for name in summaries[0]
        if not name.endswith(_OF_ONE_RUN) and all(name in one for one in summaries)
    }


def _gains(values: Mapping[str, np.ndarray], baseline: str) -> dict[str, SeedFigure]:
    gains = {
        label: two_level(table - values[baseline])
        for label, table in values.items() if label != baseline
    }
    adjusted = holm([gain.p_value for gain in gains.values()])
    return {
        label: gain._replace(p_value=p)
        for (label, gain), p in zip(gains.items(), adjusted, strict=True)
    }
