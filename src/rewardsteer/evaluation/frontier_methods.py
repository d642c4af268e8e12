"""Methods of several comparisons, each with its runs: values by prompt, and costs per response.

Shapes: S runs, P prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.record_files import finished_summary, records_by_method
from rewardsteer.evaluation.statistics import (
    FEWEST,
    SeedFigure,
    difference_p_value,
    mean,
    share,
    two_level,
)
from rewardsteer.outputs import read_json
from rewardsteer.records import EvalRecord

# Names of costs; `costs_of` computes them from a method's figures.
COSTS = ("seconds", "tokens", "passes", "kl")


@dataclass(frozen=True)
class Method:
    """One method over its runs.

    Attributes:
        label: its name.
        runs: indices of the folders that hold it.
        values: metric → values ``[S, P]``.
        baseline: the baseline's values in the same folders.
        costs: cost → mean of each run ``[S]``; costs that were not measured are absent.
        sweep: name shared with the methods that differ by weight alone; "" when alone.
        weight: guidance weight, within a sweep.
    """

    label: str
    runs: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    baseline: Mapping[str, np.ndarray]
    costs: Mapping[str, np.ndarray]
    sweep: str = ""
    weight: float = 0.0


def load_methods(folders: Sequence[Path]) -> tuple[dict[str, Method], str]:
    """The methods of finished comparisons and their baseline.

    Args:
        folders: outputs of ``evaluate generation``; one with several seeds counts as its runs.

    Raises:
        ConfigError: no folder, or one given twice.
        DataError: a folder holds no comparison, or folders differ in baseline, prompts or metrics.
    """
    places = [run for folder in folders for run in _runs_of(folder)]
    if not places or len(set(places)) != len(places):
        raise ConfigError("Expected different folders of comparisons, each once.")
    summaries = [finished_summary(place) for place in places]
    tables = [records_by_method(*one) for one in zip(places, summaries, strict=True)]
    baseline = str(summaries[0]["baseline"])
    wanted = _what_is_asked(tables[0][baseline])
    for place, summary, table in zip(places, summaries, tables, strict=True):
        if summary["baseline"] != baseline:
            raise DataError(
                f"{place} compares with {summary['baseline']!r} and {places[0]} with {baseline!r}; "
                "a frontier needs one baseline in all folders."
            )
        for label, records in table.items():
            if _what_is_asked(records) != wanted:
                raise DataError(
                    f"{label!r} in {place} answers other prompts, or was judged otherwise, than "
                    f"{places[0]}; a frontier compares methods on the same prompts."
                )
    labels = dict.fromkeys(label for table in tables for label in table)
    found = {label: _method(label, baseline, summaries, tables) for label in labels}
    return found, baseline


def _runs_of(folder: Path) -> list[Path]:
    seeds = folder / "seeds.json"
    if not seeds.is_file():
        return [folder]
    # The folder may have been moved: only the names of the runs in it are used.
    return [folder / Path(run).name for run in read_json(seeds)["runs"]]


def _what_is_asked(records: Sequence[EvalRecord]) -> tuple[Any, ...]:
    return (
        [(one.generation.id, one.generation.prompt) for one in records], sorted(records[0].metrics)
    )


def _method(
    label: str, baseline: str, summaries: Sequence[Mapping[str, Any]],
    tables: Sequence[Mapping[str, Sequence[EvalRecord]]],
) -> Method:
    runs = tuple(number for number, table in enumerate(tables) if label in table)
    figures = [costs_of(summaries[number]["methods"][label]) for number in runs]
    summary = summaries[runs[0]]
    sweeps = [name for name, labels in summary.get("sweeps", {}).items() if label in labels]
    return Method(
        label, runs, _values([tables[number][label] for number in runs]),
        _values([tables[number][baseline] for number in runs]),
        {
            name: np.array([one[name] for one in figures])
            for name in COSTS if all(name in one for one in figures)
        },
        sweeps[0] if sweeps else "", float(summary.get("weights", {}).get(label, 0.0)),
    )


def _values(runs: Sequence[Sequence[EvalRecord]]) -> dict[str, np.ndarray]:
    return {
        name: np.array([[one.metrics[name] for one in run] for run in runs])
        for name in runs[0][0].metrics
    }


def costs_of(figures: Mapping[str, float]) -> dict[str, float]:
    """Costs per response from a method's figures: ``seconds``; policy-equivalent ``tokens``;
    forward ``passes`` of policy and reward model; ``kl`` from the policy in nats, 0 for the policy
    itself. A cost that was not measured is left out."""
    found = {
        "seconds": figures["seconds_per_response"],
        "passes": figures["length"] * (
            figures["lm_forwards_per_token"] + figures["rm_forwards_per_token"]
        ),
    }
    for name, figure in (("tokens", "equivalent_tokens"), ("kl", "kl")):
        if figure in figures:
            found[name] = figures[figure]
    return found


def over_all(values: np.ndarray, *, of_share: bool = False) -> SeedFigure:
    """Mean of ``[S, P]`` with its interval over runs and prompts; for one run over prompts.

    Args:
        values: ``[S, P]``.
        of_share: treat values that are all 0 or 1 as a share, whose interval stays in [0, 1].
    """
    binary = of_share and set(np.unique(values).tolist()) <= {0.0, 1.0}
    if len(values) > 1 and values.shape[1] >= FEWEST:
        return two_level(values, bounded=binary)
    row = values.mean(axis=0)
    one = share(row) if binary and len(values) == 1 else mean(row)
    spread = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else float("nan")
    p_value = float("nan") if binary else difference_p_value(row, np.zeros_like(row))
    return SeedFigure(one.value, one.low, one.high, spread, p_value)
