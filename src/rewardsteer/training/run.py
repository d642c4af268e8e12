"""A training run: data, phases, the final model folder; resumable at any point.

    OUT/config.yaml         resolved settings            OUT/run.json   versions, seed, fingerprints
    OUT/data/               prepared data, when made here
    OUT/metrics.jsonl       one line a log               OUT/state.json finished phases
    OUT/phases/NN-NAME/     weights.safetensors after the phase, checkpoints within it
    OUT/model/              the reward model: an ordinary Hugging Face folder
"""

import gc
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, set_seed

from rewardsteer.data.prepare import prepare
from rewardsteer.data.selection import listed
from rewardsteer.data.store import MANIFEST, SPLITS, load_manifest, load_set
from rewardsteer.data.store_checks import check_recipe, check_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.errors import RewardsteerError
from rewardsteer.models.checkpoint import ensure_padding_token, load_tokenizer
from rewardsteer.models.limits import position_limit
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.start import trained_template
from rewardsteer.objectives.combine import build_objective
from rewardsteer.outputs import claimed_folder, read_json, write_json
from rewardsteer.quiet import keep_log
from rewardsteer.training.checkpoints import named_failure
from rewardsteer.training.checks import check_callbacks, check_settings
from rewardsteer.training.config import PhaseConfig, TrainConfig
from rewardsteer.training.description import describe_training
from rewardsteer.training.fit import fit
from rewardsteer.training.loading import build, check_models, keeps_adapters
from rewardsteer.training.precision import saved_dtype
from rewardsteer.training.processes import join
from rewardsteer.training.resume import check_checkpoint, check_same, finished, reopen
from rewardsteer.training.rows import (
    check_phases,
    count_single,
    draw_prefixes,
    drop_too_long,
    sets_of,
    training_rows,
)
from rewardsteer.training.weights import save_weights

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"


def train(
    config: TrainConfig, out: Path, *, resume: bool = False, overwrite: bool = False,
    resume_from_checkpoint: Path | None = None, callbacks: Sequence[Any] = (),
) -> Path:
    """Train a reward model and return its folder, ``OUT/model``.

    Args:
        config: the settings.
        out: output folder.
        resume: continue a run in ``out`` that was interrupted, or that gets more rounds; settings
            that change its numbers must be the same.
        overwrite: replace the contents of ``out``.
        resume_from_checkpoint: continue from this checkpoint of the current phase, not from the
            newest one.
        callbacks: `transformers.TrainerCallback` objects, or classes to be created for each
            phase; they come after those of the settings.

    Raises:
        ConfigError: contradictory settings, other ones than the interrupted run's, or ``callbacks``
            that are none.
        OutputError: ``out`` is not empty and neither flag was given; or something cannot be
            written, and finished phases and checkpoints stay.
        DataError: no rows, or data prepared with another tokenizer.
        MismatchError: data prepared with another template than the recipe's.
        CheckpointError: the base model cannot be loaded, or no such checkpoint is there.
        NonFiniteError: the loss became NaN; finished phases and checkpoints stay.
    """
    # Under a launcher every process runs this; only the first one makes folders and writes files.
    processes, wait = join(int(config.trainer.get("ddp_timeout", 1800)))
    makers = check_settings(config, processes.num_processes)
    check_callbacks(
        [*(maker.func for maker in makers), *callbacks],
        evaluates=config.trainer.get("eval_strategy") != "no",
    )
    tokenizer = load_tokenizer(config.base_model)
    check_models(config, tokenizer)
    ensure_padding_token(tokenizer, grow=not keeps_adapters(config))
    if config.prepared is not None:
        place = Path(config.prepared)
        manifest = load_manifest(place)
        check_tokenizer(manifest, tokenizer, place)
        check_recipe(
            manifest, config.data.template if config.data else None, tokenizer, place,
            trained_template(config.base_model),
        )
    resume = resume or resume_from_checkpoint is not None
    with ExitStack() as held:
        if processes.is_main_process:
            held.enter_context(claimed_folder(out, resume=resume, overwrite=overwrite))
            keep_log(out)
            check_same(config, out, processes.num_processes)
        wait()
        if resume_from_checkpoint is not None:
            check_checkpoint(config, out, resume_from_checkpoint)
        if finished(config, out):
            return out / "model"
        wait()
        data, ready = _begin(config, tokenizer, out, wait, resume=resume)
        going = _Run(config, tokenizer, data, out, wait, [*makers, *callbacks])
        state = _run_phases(going, ready, resume=resume, resume_from=resume_from_checkpoint)
        if processes.is_main_process:
            _finish(config, tokenizer, data, out, state)
        wait()
    return out / "model"


def _begin(
    config: TrainConfig, tokenizer: Any, out: Path, wait: Callable[[], None], *, resume: bool
) -> tuple[Path, list[RewardModel]]:
    """The folder of prepared data, and a new run's first model. It is built here, so that a refusal
    leaves the folder empty."""
    first = PartialState().is_main_process
    try:
        if first:
            reopen(out)
            _prepare_data(config, tokenizer, out, overwrite=resume)
        wait()
        data = out / "data" if config.prepared is None else Path(config.prepared)
        ready = [] if (out / "state.json").exists() else [build(config, tokenizer)]
        if ready:
            objectives = [build_objective(phase.objective) for phase in config.plan()]
            check_phases(objectives, data, position_limit(ready[0].carrier.config))
    except RewardsteerError:
        # Nothing was trained yet: leave the folder as it was found.
        if first and not resume:
            shutil.rmtree(out, ignore_errors=True)
        raise
    return data, ready


@dataclass(frozen=True)
class _Run:
    """What all phases of a run share."""

    config: TrainConfig
    tokenizer: Any
    data: Path
    out: Path
    wait: Callable[[], None]
    callbacks: Sequence[Any]


def _prepare_data(config: TrainConfig, tokenizer: Any, out: Path, *, overwrite: bool) -> None:
    """Prepare data inside the run's folder when the settings say what to prepare, with the template
    of the reward model that training starts from where they name none."""
    if config.prepared is None and not (out / "data" / MANIFEST).exists():
        assert config.data is not None, "TrainConfig demands one of the two"
        settings, trained = config.data, trained_template(config.base_model)
        if trained is not None and settings.template == Template():
            settings = settings.model_copy(update={"template": trained})
        made = prepare(
            settings, tokenizer, out / "data", overwrite=overwrite, section="data."
        )
        if made.dropped:
            train, test = (min(made.counts[split].values()) for split in SPLITS)
            logger.info(
                "Prepared %d training and %d test rows; others were left out%s.", train, test,
                listed(made.dropped),
            )
        for note in made.notes:
            logger.warning(note)


def _run_phases(
    run: _Run, ready: list[RewardModel], *, resume: bool, resume_from: Path | None
) -> list[dict[str, Any]]:
    """Run the remaining phases of the plan; returns one record per finished phase.

    Each phase builds the model again: a model that was sharded for one trainer does not suit
    another, and an uninterrupted run then does the same as a resumed one.
    """
    config, out = run.config, run.out
    state: list[dict[str, Any]] = (
        read_json(out / "state.json") if (out / "state.json").exists() else []
    )
    plan = config.plan()
    for index in range(len(state), len(plan)):
        phase = plan[index]
        folder = out / "phases" / f"{index + 1:02d}-{phase.name}"
        before = out / state[-1]["folder"] / WEIGHTS if state else None
        model = ready.pop() if ready else build(config, run.tokenizer, before)
        figures = _run_phase(
            run, phase, index, model, folder, resume=resume, resume_from=resume_from,
            title=f"phase {index + 1} of {len(plan)}, {phase.name}",
        )
        resume_from = None
        state.append({"phase": phase.name, "folder": str(folder.relative_to(out)), **figures})
        save_weights(model, folder / WEIGHTS)
        if PartialState().is_main_process:
            write_json(out / "state.json", state)
            _drop_old(state, config, out)
        run.wait()
        # Trainer and model refer to each other; free the model before the next is built.
        del model
        gc.collect()
    return state


def _run_phase(
    run: _Run, phase: PhaseConfig, index: int, model: RewardModel, folder: Path, *, resume: bool,
    resume_from: Path | None, title: str,
) -> dict[str, Any]:
    config = run.config
    objective = build_objective(phase.objective)
    seed = config.seed + 1000 * index
    rows = training_rows(objective, run.data)
    limit = position_limit(model.carrier.config)
    rows, too_long = drop_too_long(rows, limit, paired=objective.rows == "pairs", what="training")
    if phase.rows is not None and phase.rows < len(rows):
        rows = rows.shuffle(seed=seed).select(range(phase.rows))
    if phase.prefix_rows is not None:
        assert objective.prefixes is not None, "checked before training starts"
        rows = draw_prefixes(rows, objective.prefixes, phase.prefix_rows, seed)
    test, _ = drop_too_long(load_set(run.data, "test", sets_of(objective)[1]), limit, what="test")
    held_out = test.select(range(min(len(test), config.log.eval_rows)))
    optimiser = config.optimiser
    if phase.learning_rate is not None:
        optimiser = optimiser.model_copy(update={"learning_rate": phase.learning_rate})
    set_seed(seed)
    figures = fit(
        model, run.tokenizer, objective, rows, folder, folder.parent.parent / "metrics.jsonl",
        optimiser=optimiser, log=config.log, seed=seed,
        eval_rows=held_out if len(held_out) else None,
        padding_side=config.padding_side, packing=config.packing,
        phase=f"{index + 1:02d}-{phase.name}", title=title, resume=resume, resume_from=resume_from,
        keep_best=config.select == "best", deterministic=config.deterministic,
        trainer_fields=config.trainer, callbacks=[
            one if isinstance(one, TrainerCallback) else one() for one in run.callbacks
        ],
    )
    single = count_single(held_out) > 0
    return figures | {"eval_rows": len(held_out), "eval_single": single, "rows_too_long": too_long}


def _drop_old(state: list[dict[str, Any]], config: TrainConfig, out: Path) -> None:
    """Delete the files that neither resuming nor choosing the best needs."""
    wanted = {state[-1]["folder"]}
    if config.select == "best":
        wanted.add(_best(state, config)["folder"])
    for record in state:
        folder = out / record["folder"]
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
        if record["folder"] not in wanted:
            (folder / WEIGHTS).unlink(missing_ok=True)


def _best(state: list[dict[str, Any]], config: TrainConfig) -> dict[str, Any]:
    """The finished phase with the best test accuracy (or its objective's own figure), among those
    named like the plan's last phase."""
    last = config.plan()[-1]
    candidates = [record for record in state if record["phase"] == last.name] or state
    figure = f"eval_{build_objective(last.objective).best}"
    return max(candidates, key=lambda record: record.get(figure) or float("-inf"))


def _finish(
    config: TrainConfig, tokenizer: Any, data: Path, out: Path, state: list[dict[str, Any]]
) -> None:
    """Write the model folder, in one process and on the CPU."""
    chosen = _best(state, config) if config.select == "best" else state[-1]
    model = build(config, tokenizer, out / chosen["folder"] / WEIGHTS, whole=True)
    if not keeps_adapters(config):
        model.merge_adapters()
        model.base.to(saved_dtype(config.base_model))
    card = describe_training(config, load_manifest(data), state, chosen)
    # The model comes last: where it is, the run is done.
    write_json(out / "result.json", {"model": "model", "kept": chosen["folder"], "phases": state})
    with named_failure(f"The model {out / 'model'}", out, "the phases' weights are kept"):
        model.save_pretrained(out / "model", tokenizer, card)
