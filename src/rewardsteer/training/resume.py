"""Whether a run can be resumed with the given settings: those that change its numbers must be the
same."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewardsteer.configuration import save_config
from rewardsteer.data.store import load_manifest
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.checkpoint import library_versions
from rewardsteer.outputs import read_json, write_json
from rewardsteer.training.checkpoints import whole_checkpoints
from rewardsteer.training.config import TrainConfig

# Settings of logging do not change the numbers.
_FREE_LOG = {"logging_steps", "progress", "print_logs", "report_to", "spike_threshold"}
# These change which weights select=best keeps, and nothing otherwise.
_FREE_UNLESS_BEST = {"eval_steps", "save_steps", "eval_rows"}
_FREE_TRAINER = {
    "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    "logging_strategy", "logging_first_step", "log_on_each_node", "log_level",
    "log_level_replica", "logging_dir", "save_total_limit", "save_on_each_node", "ddp_timeout",
    "ddp_backend", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "torch_empty_cache_steps",
    "skip_memory_metrics", "debug", "per_device_eval_batch_size", "eval_on_start", "eval_delay",
    "eval_strategy", "save_strategy",
}


def check_same(config: TrainConfig, out: Path, processes: int) -> None:
    """Save the settings of a new run, or refuse to resume one with settings that change its
    numbers.

    More rounds, epochs or updates are allowed: they only make the run longer.

    Raises:
        ConfigError: names the settings that differ, or says that nothing is left to do.
    """
    place = out / "run.json"
    data = _data(config)
    record = {
        "config": config.model_dump(mode="json"), "versions": library_versions(),
        "seed": config.seed, "processes": processes, "data": data,
    }
    if not place.exists():
        save_config(config, out / "config.yaml")
        write_json(place, record)
        return
    run = read_json(place)
    launched = run.get("processes", 1)
    before = _deciding(_as_now(run["config"]), run.get("data", ""))
    now = _deciding(config, data if run.get("data") else "")
    if launched != processes:
        _check_moved(config, run["config"], launched, processes, out)
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            before[f"optimiser.{name}"] = now[f"optimiser.{name}"]
    changed = sorted(
        name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    )
    if changed:
        raise ConfigError(
            f"The run in {out} was started with other settings ({', '.join(changed)} differ); "
            "resume it with the same ones, or choose another folder (--out)."
        )
    _check_plan(config, run["config"], out)
    if run["config"] != record["config"]:
        save_config(config, out / "config.yaml")
        write_json(place, run | {"config": record["config"], "processes": processes})


def finished(config: TrainConfig, out: Path) -> bool:
    """Whether all phases of the plan are done and the model is written."""
    place = out / "state.json"
    done = len(read_json(place)) if place.exists() else 0
    return (out / "model").exists() and done >= len(config.plan())


def check_checkpoint(config: TrainConfig, out: Path, wanted: Path) -> None:
    """Check that a run can resume from a checkpoint.

    Raises:
        CheckpointError: it is not one of the current phase in ``out``, or is incomplete.
    """
    place = out / "state.json"
    done = len(read_json(place)) if place.exists() else 0
    plan = config.plan()
    if done >= len(plan):
        raise CheckpointError(f"The run in {out} is finished; no checkpoint of it can be resumed.")
    folder = out / "phases" / f"{done + 1:02d}-{plan[done].name}"
    there = whole_checkpoints(folder)
    if wanted.resolve() not in [one.resolve() for one in there]:
        names = ", ".join(sorted(one.name for one in there)) or "none"
        raise CheckpointError(
            f"Expected a whole checkpoint of the phase under way in {folder}, got {wanted}; there: "
            f"{names}."
        )


def reopen(out: Path) -> None:
    """Delete the final model of a run that continues."""
    shutil.rmtree(out / "model", ignore_errors=True)


def _as_now(values: dict[str, Any]) -> TrainConfig | dict[str, Any]:
    """Earlier settings with the defaults of fields that did not exist then."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError:
        return values


def _deciding(config: TrainConfig | dict[str, Any], data: str) -> dict[str, Any]:
    """Settings that change the numbers, by dotted name."""
    values = config if isinstance(config, dict) else config.model_dump(mode="json")
    values = dict(values)
    free_log = _FREE_LOG if values.get("select") == "best" else _FREE_LOG | _FREE_UNLESS_BEST
    flat: dict[str, Any] = {}
    for name in ("rounds", "last_phase"):
        values.pop(name, None)
    if values.get("prepared"):
        # Prepared data is compared by its contents, wherever its folder is.
        values.pop("data", None)
        if data:
            values["prepared"] = data
    for section, free in (
        ("optimiser", {"num_train_epochs", "max_steps", "train_batch_size"}), ("log", free_log),
        ("trainer", _FREE_TRAINER),
    ):
        inner = values.pop(section, None) or {}
        flat |= {f"{section}.{name}": one for name, one in inner.items() if name not in free}
    return flat | values


def _data(config: TrainConfig) -> str:
    """Fingerprint of the prepared data; "" when the run prepares its own."""
    return "" if config.prepared is None else load_manifest(Path(config.prepared)).fingerprint


def _check_plan(config: TrainConfig, before: dict[str, Any], out: Path) -> None:
    place = out / "state.json"
    done = [record["phase"] for record in read_json(place)] if place.exists() else []
    plan = [phase.name for phase in config.plan()]
    if done != plan[: len(done)]:
        raise ConfigError(
            f"The run in {out} finished the phases {', '.join(done)}, which these settings "
            f"(rounds, last_phase) do not begin with: {', '.join(plan)}."
        )
    longer = [
        name for name in ("num_train_epochs", "max_steps")
        if before["optimiser"].get(name) != getattr(config.optimiser, name)
    ]
    if longer and len(done) == len(plan):
        raise ConfigError(
            f"All phases of the run in {out} are finished, so optimiser.{longer[0]} changes "
            "nothing; add rounds, or start another run."
        )


def _check_moved(
    config: TrainConfig, before: dict[str, Any], launched: int, processes: int, out: Path
) -> None:
    """Refuse to go on with another number of processes where an update would hold other rows."""
    optimiser, old = config.optimiser, before["optimiser"]
    if optimiser.train_sampling_strategy != "random" or optimiser.batch_tokens is not None:
        raise ConfigError(
            f"The run in {out} was started on {launched} processes, and with batches of similar "
            f"length their number decides which rows an update holds; resume it on {launched}, "
            f"not {processes}."
        )
    batch, steps = "per_device_train_batch_size", "gradient_accumulation_steps"
    together = old[batch] * old[steps] * launched
    ours = getattr(optimiser, batch) * getattr(optimiser, steps) * processes
    if ours != together:
        raise ConfigError(
            f"The run in {out} was started on {launched} processes with {together} comparisons an "
            f"update; on {processes} these settings make {ours}. Set optimiser.{batch} and "
            f"optimiser.{steps} so that their product is {together / processes:g}."
        )
