"""A distillation run: records of the teacher, a student trained on them, its folder.

    OUT/config.yaml   resolved settings        OUT/records/   see `rewardsteer.distillation.records`
    OUT/metrics.jsonl one line a log           OUT/training/  checkpoints
    OUT/result.json   figures of held-out prompts
    OUT/model/        the student: an ordinary reward model with a vocabulary head, for ``farma``
"""

import functools
import logging
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from rewardsteer.configuration import load_config, save_config
from rewardsteer.data.digests import digest, vocabulary_hash
from rewardsteer.data.template import writer_of
from rewardsteer.decoding.policy import load_policy, stop_ids
from rewardsteer.decoding.prompts import encode_request
from rewardsteer.decoding.requests import Request, read_requests
from rewardsteer.devices import AUTO
from rewardsteer.distillation.collect import Announce, Policy, collect, shard_count
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.distillation.records import (
    Source,
    check_source,
    read_records,
    read_source,
    shard_path,
    split_records,
)
from rewardsteer.distillation.teacher import teacher_of
from rewardsteer.errors import ConfigError, DataError, MismatchError, RewardsteerError
from rewardsteer.models.checkpoint import (
    CheckpointCard,
    MetricResult,
    ensure_padding_token,
    load_tokenizer,
)
from rewardsteer.models.checkpoint import fingerprint as weights_fingerprint
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.limits import position_limit
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.start import check_base_model, check_causal
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.config import TermConfig
from rewardsteer.outputs import claimed_folder, write_json
from rewardsteer.training.arguments import training_arguments
from rewardsteer.training.checks import check_best_figure, check_optimiser
from rewardsteer.training.fit import fit
from rewardsteer.training.loading import deepspeed_loading, without_dropout
from rewardsteer.training.precision import saved_dtype, usable_attention, widen_trainable
from rewardsteer.training.processes import join
from rewardsteer.training.rows import drop_too_long
from rewardsteer.training.trainer_settings import check_trackers
from rewardsteer.training.weights import load_weights, save_weights

logger = logging.getLogger(__name__)

_WEIGHTS = "weights.safetensors"


def distil(
    config: DistilConfig, out: Path, *, resume: bool = False, overwrite: bool = False,
    device: str = AUTO, announce: Announce = lambda *_: None,
) -> Path:
    """Distil a guide and return the student's folder, ``OUT/model``.

    Args:
        resume: continue a run in ``out`` that was interrupted, with the same settings.
        overwrite: replace the contents of ``out``.
        device: of policy and teacher while records are made.
        announce: called with shards of records done and in all.

    Raises:
        ConfigError: contradictory settings, or other ones than the interrupted run's.
        MismatchError: records of another teacher or policy, or a student with another tokenizer.
        OutputError: ``out`` is not empty and neither flag was given.
    """
    processes, wait = join(int(config.trainer.get("ddp_timeout", 1800)))
    _check_training(config, processes.num_processes)
    tokenizer = load_tokenizer(config.policy)
    _check_student(config, tokenizer)
    if config.records is not None:
        _check_records(config, tokenizer, Path(config.records))
    with ExitStack() as claimed:
        if processes.is_main_process:
            claimed.enter_context(claimed_folder(out, resume=resume, overwrite=overwrite))
            _check_same(config, out)
        wait()
        if (out / "result.json").exists():
            return out / "model"
        records = out / "records" if config.records is None else Path(config.records)
        try:
            if processes.is_main_process and config.records is None:
                _collect(config, tokenizer, records, device, announce)
            wait()
            student, tokenizer = build_student(config)
            rows, held = _rows(config, records, position_limit(student.carrier.config))
        except RewardsteerError:
            # Nothing was made yet: leave the folder as it was found.
            made = resume or shard_path(out / "records", 0).exists()
            if processes.is_main_process and not made:
                shutil.rmtree(out, ignore_errors=True)
            raise
        figures = _train(config, student, tokenizer, rows, held, out, resume=resume)
        # It may be in shards; the folder is written from the gathered weights.
        del student
        if processes.is_main_process:
            _finish(config, records, out, figures)
        wait()
    return out / "model"


def _term(config: DistilConfig) -> TermConfig:
    return TermConfig(name="distillation", options=config.loss)


def _check_training(config: DistilConfig, processes: int) -> None:
    """Refuse settings of training before records are made, which may take hours."""
    check_best_figure(build_objective([_term(config)]), config.head, config.trainer, single=True)
    check_optimiser(config.optimiser, processes)
    check_trackers(config.log.report_to)
    training_arguments(
        Path("."), config.optimiser, config.log, config.seed, evaluate=True, trainer=config.trainer
    )


def _check_student(config: DistilConfig, tokenizer: Any) -> None:
    base = config.base_model
    check_base_model(base or config.policy, config.head)
    if base is not None and vocabulary_hash(load_tokenizer(base)) != vocabulary_hash(tokenizer):
        raise MismatchError(
            f"A student gives rewards of the policy's tokens, and the tokenizer of {base} has "
            f"other ones than that of {config.policy}; choose a base_model with the policy's "
            "tokenizer, or leave it out."
        )


@functools.cache
def _identity(name: str) -> str:
    """Identifies a model's weights: their fingerprint, or an address itself."""
    return name if name.startswith(("http://", "https://")) else weights_fingerprint(Path(name))


def _check_records(config: DistilConfig, tokenizer: Any, folder: Path) -> None:
    """Refuse records of another teacher or policy."""
    check_source(folder, {
        "teacher": _identity(config.teacher), "policy": _identity(config.policy),
        "tokenizer": vocabulary_hash(tokenizer),
    })


def _check_same(config: DistilConfig, out: Path) -> None:
    """Save the settings of a new run; refuse other ones for a resumed run."""
    place = out / "config.yaml"
    if place.exists() and load_config(DistilConfig, place) != config:
        raise ConfigError(
            f"The run in {out} was begun with other settings (config.yaml); go on with the same "
            "ones, or choose another folder."
        )
    save_config(config, place)


def _collect(
    config: DistilConfig, tokenizer: Any, folder: Path, device: str, announce: Announce
) -> None:
    """Make the records; policy and teacher leave memory afterwards."""
    assert config.prompts is not None, "checked with the settings"
    requests = read_requests(Path(config.prompts))
    if len({one.id for one in requests}) < 2:
        raise DataError(
            f"Distillation holds one prompt out, so it needs at least 2; {config.prompts} has "
            f"{len(requests)}."
        )
    scorer = load_scorer(config.teacher, device=device)
    model = load_policy(config.policy, device=device)
    template, renderer = writer_of(config.template, tokenizer, scorer)
    encoded = [
        Request(id=one.id, prompt=one.prompt,
                prompt_ids=encode_request(one, template, renderer, tokenizer))
        for one in requests
    ]
    stops = stop_ids(model.generation_config, tokenizer)
    source = Source(
        policy=_identity(config.policy), teacher=_identity(config.teacher),
        tokenizer=vocabulary_hash(tokenizer), template=template.model_dump(mode="json"),
        settings={
            "sampling": config.sampling.model_dump(mode="json", exclude={"batch_size"}),
            "candidates": config.candidates.model_dump(mode="json", exclude={"batch_size"}),
            "prompts": digest([one.model_dump(mode="json") for one in encoded]),
            "seed": config.seed,
        },
        shards=shard_count(len(encoded)),
    )
    collect(
        Policy(model, tokenizer, template), teacher_of(scorer, tokenizer, stops, template), encoded,
        config, source, folder, announce=announce,
    )


def build_student(config: DistilConfig, *, whole: bool = False) -> tuple[RewardModel, Any]:
    """A new student and its tokenizer; weights that are not trained are frozen. ``whole``: nothing
    is sharded."""
    set_seed(config.seed)
    source = config.base_model or config.policy
    tokenizer = load_tokenizer(source)
    dtype = saved_dtype(source) if config.freeze_backbone else torch.float32
    with deepspeed_loading(spread=not whole):
        model = RewardModel.from_base(
            source, config.head, dtype=dtype,
            attn_implementation=usable_attention(None, config.optimiser.autocast),
        )
        check_causal(model.carrier, source)
        ensure_padding_token(tokenizer, model.carrier)
        config.head.head_class.resized(model.carrier, tokenizer)
        # Guidance runs without dropout; with it, the student would be trained on other states.
        without_dropout(model.carrier)
        if config.freeze_backbone:
            model.base.requires_grad_(False)
            if model.value_head is None:
                model.head.projection.requires_grad_(True)
        widen_trainable(model)
    return model, tokenizer


def _rows(config: DistilConfig, records: Path, limit: int | None) -> tuple[Any, Any]:
    """Training and held-out rows that fit into the student's positions."""
    rows, _ = drop_too_long(read_records(records), limit, paired=False)
    rows, held = split_records(rows, config.test_fraction, config.seed)
    return rows, held.select(range(min(len(held), config.log.eval_rows)))


def _train(
    config: DistilConfig, student: RewardModel, tokenizer: Any, rows: Any, held: Any, out: Path, *,
    resume: bool,
) -> dict[str, Any]:
    """Train a student; returns the held-out figures."""
    figures = fit(
        student, tokenizer, build_objective([_term(config)]), rows, out / "training",
        out / "metrics.jsonl", optimiser=config.optimiser, log=config.log, seed=config.seed,
        eval_rows=held, phase="distillation", title="distillation", resume=resume,
        trainer_fields=config.trainer,
    )
    save_weights(student, out / "training" / _WEIGHTS)
    return figures | {"rows": len(rows), "held_out": len(held)}


def _finish(
    config: DistilConfig, records: Path, out: Path, figures: dict[str, Any]
) -> None:
    """Write the student's folder, with which the run is done, in one process."""
    student, tokenizer = build_student(config, whole=True)
    load_weights(student, out / "training" / _WEIGHTS)
    source, base = read_source(records), config.base_model or config.policy
    if not config.freeze_backbone or student.value_head is None:
        student.base.to(saved_dtype(base))
    own_states = config.freeze_backbone and config.base_model is None
    guidance, lost = figures["eval_guidance_kl"], figures["eval_lost_kl"]
    metrics = []
    if guidance:
        metrics.append(MetricResult(
            name="share of the teacher's guidance lost", on=f"held-out prompts of {records}",
            value=lost / guidance, count=figures["held_out"],
        ))
    card = CheckpointCard(
        head=config.head, objective="distillation", reading="value", template=source.template,
        base_model=base, base_fingerprint=source.policy if own_states else "",
        data_fingerprint=source.teacher, metrics=metrics, seed=config.seed,
    )
    student.save_pretrained(out / "model", tokenizer, card)
    write_json(out / "result.json", {"model": "model", **figures})
