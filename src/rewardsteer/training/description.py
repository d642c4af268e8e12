"""The card's fields about training: names and numbers, without paths or text of the data."""

from typing import Any

from rewardsteer.data.store import Manifest
from rewardsteer.models.adapter_folder import base_fingerprint
from rewardsteer.models.checkpoint import CheckpointCard, MetricResult
from rewardsteer.models.model_card import base_licence, hub_name
from rewardsteer.objectives.agreement import NORMAL_QUANTILE, wilson
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import keeps_adapters


def describe_training(
    config: TrainConfig, manifest: Manifest, state: list[dict[str, Any]], chosen: dict[str, Any]
) -> CheckpointCard:
    """The card of a run's model.

    Args:
        config: of the run.
        manifest: of the data.
        state: records of all phases, as in ``state.json``.
        chosen: the one whose weights the model has.
    """
    phase = next(one for one in config.phases if one.name == chosen["phase"])
    kept = keeps_adapters(config)
    return CheckpointCard(
        head=config.head,
        objective="+".join(dict.fromkeys(record["phase"] for record in state)),
        reading=build_objective(phase.objective).reading,
        template=manifest.template,
        base_model=config.base_model,
        base_on_hub=hub_name(config.base_model) is not None,
        base_licence=base_licence(config.base_model),
        base_fingerprint=base_fingerprint(config.base_model) if kept else "",
        data_fingerprint=manifest.fingerprint,
        data=describe_data(manifest),
        metrics=held_out_accuracy(chosen, manifest, chosen_by_it=config.select == "best"),
        seed=config.seed,
    )


def describe_data(manifest: Manifest) -> dict[str, Any]:
    """Names of the sources and rows by split."""
    sources = [source["name"] for source in manifest.config.get("sources", [])]
    main = manifest.sets[0]
    rows = {split: counts[main] for split, counts in manifest.counts.items() if counts[main]}
    return {"sources": sources, "rows": rows}


def held_out_accuracy(
    record: dict[str, Any], manifest: Manifest, *, chosen_by_it: bool
) -> list[MetricResult]:
    """Accuracy on held-out pairs as a phase's last evaluation found it, with Wilson's interval; on
    rows of one response, where it may be a mean over several labels of each, without.

    Args:
        record: of the phase in ``state.json``.
        manifest: of the data.
        chosen_by_it: whether the phase was kept because of this very figure.
    """
    count = int(record.get("eval_rows", 0))
    if "eval_accuracy" not in record or not count:
        return []
    share, single = float(record["eval_accuracy"]), bool(record.get("eval_single"))
    sources = ", ".join(describe_data(manifest)["sources"])
    which = f"held-out {'responses' if single else 'pairs'}"
    if chosen_by_it:
        which += " that chose the phase"
    found = MetricResult(
        name="accuracy", on=f"{sources}: {which}" if sources else which, value=share, count=count
    )
    if single:
        return [found]
    low, high = wilson(share, NORMAL_QUANTILE**2 / count)
    return [found.model_copy(update={"low": low, "high": high})]
