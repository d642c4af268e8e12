"""Figures of an evaluation's folder in the form of a checkpoint's card."""

from pathlib import Path
from typing import Any

from rewardsteer.errors import DataError, MismatchError
from rewardsteer.models.checkpoint import MetricResult
from rewardsteer.outputs import read_json


def read_metric_results(folder: Path, fingerprint: str) -> list[MetricResult]:
    """Results of ``evaluate preference`` or ``evaluate correctness``.

    Args:
        folder: its output folder.
        fingerprint: of the weights of the model whose figures are wanted.

    Raises:
        DataError: neither command wrote this folder.
        MismatchError: another model was evaluated.
    """
    metrics = read_json(folder / "metrics.json")
    if "all" in metrics:
        measured = metrics.get("fingerprint", fingerprint)
        if measured != fingerprint:
            raise MismatchError(
                f"The figures in {folder} are of the model {measured}, this one is {fingerprint}; "
                "evaluate this model."
            )
        return _preference(metrics)
    found = [
        _figure(figures, name, f"{benchmark}: {what}", count=figures["solutions"])
        for benchmark, figures in metrics.items() if isinstance(figures, dict)
        for name, what in (
            ("auroc", "reward against the label"),
            ("auroc_similarity", "similarity to the goal state against the label"),
        ) if name in figures
    ]
    if not found:
        raise DataError(
            f"Expected the output of 'evaluate preference' or 'evaluate correctness' in {folder}, "
            "its metrics.json holds neither's figures."
        )
    return found


def _preference(metrics: dict[str, Any]) -> list[MetricResult]:
    subsets = {name: figures for name, figures in metrics["subsets"].items() if name != "none"}
    groups = {"held-out pairs": metrics["all"]} | {
        f"held-out pairs, {name}": figures for name, figures in subsets.items()
    }
    return [
        _figure(figures, "accuracy", on, count=figures["count"])
        for on, figures in groups.items() if figures["count"]
    ]


def _figure(figures: dict[str, Any], name: str, on: str, *, count: int) -> MetricResult:
    return MetricResult(
        name=name.partition("_")[0], on=on, value=figures[name], low=figures.get(f"{name}_low"),
        high=figures.get(f"{name}_high"), count=count,
    )
