"""Supervised fine-tuning of a policy on responses, with the plain `transformers.Trainer`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from rewardsteer.configuration import save_config
from rewardsteer.data.collate import SftCollator
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.checkpoint import (
    ensure_padding_token,
    library_versions,
    load_tokenizer,
    save_tokenizer,
)
from rewardsteer.models.compatibility import first_difference
from rewardsteer.models.limits import position_limit
from rewardsteer.models.start import load_language_model
from rewardsteer.outputs import check_folder, claimed_folder, read_json, write_json
from rewardsteer.quiet import quiet_calls
from rewardsteer.training.checks import check_callbacks, check_optimiser, check_trainer_sections
from rewardsteer.training.policy_config import PolicyConfig
from rewardsteer.training.precision import saved_dtype
from rewardsteer.training.processes import join
from rewardsteer.training.rows import drop_too_long


def build_policy(config: PolicyConfig, tokenizer: Any) -> Any:
    """The model to fine-tune.

    Raises:
        CheckpointError: the base model cannot be loaded, or is no language model.
        ConfigError: unknown model type or option.
        MismatchError: the base model has another tokenizer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(config.seed)
    if config.base_model is not None:
        _check_tokenizer(config.base_model, tokenizer)
        return load_language_model(config.base_model, config.dtype)
    try:
        architecture = AutoConfig.for_model(
            config.architecture.model_type,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config.architecture.options,
        )
        return AutoModelForCausalLM.from_config(architecture)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"The policy architecture cannot be built: {error}") from error


def _check_tokenizer(base: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that gives ids other tokens than the base model's own does. Added tokens
    may differ, because they are learned, and a folder may hold weights alone."""
    if Path(base).is_dir() and not any(Path(base).glob("tokenizer*")):
        return
    found = first_difference(tokenizer, load_tokenizer(base), added=True)
    if found is not None:
        index, ours, theirs = found
        raise MismatchError(
            f"The id {index} is {ours} in the tokenizer given and {theirs} in that of the base "
            f"model {base}; give the base model's tokenizer, and data prepared with it."
        )


@quiet_calls
def train_policy(
    config: PolicyConfig, tokenizer: Any, rows: Any, out: Path, *, overwrite: bool = False,
) -> Path:
    """Fine-tune on rows of the SFT set and return the model folder, ``OUT/model``.

    Args:
        config: the settings.
        tokenizer: saved beside the model.
        rows: dataset with ``prompt_ids`` and ``label_ids``; only the label is learned.
        out: output folder, empty unless ``overwrite``.

    Rows longer than the positions that the model was built for are left out.

    Raises:
        CheckpointError, MismatchError: see `build_policy`.
        ConfigError: a tracker or callback that is not there, settings that transformers refuses, or
            an architecture that cannot be built.
        DataError: no row is left.
        OutputError: see `claim_folder`.
    """
    processes, wait = join(int(config.trainer.get("ddp_timeout", 1800)))
    check_optimiser(config.optimiser, processes.num_processes)
    makers = check_trainer_sections(config, evaluate=False)
    check_callbacks([maker.func for maker in makers], evaluates=False)
    if processes.is_main_process:
        check_folder(out, overwrite=overwrite)
    ensure_padding_token(tokenizer)
    # Errors are raised before the folder is made.
    model = build_policy(config, tokenizer)
    if len(rows) == 0:
        raise DataError("Fine-tuning a policy needs rows; the SFT set is empty.")
    rows, _ = drop_too_long(rows, position_limit(model.config))
    wait()
    with ExitStack() as claimed:
        if processes.is_main_process:
            claimed.enter_context(claimed_folder(out, overwrite=overwrite))
            save_config(config, out / "config.yaml")
            write_json(out / "run.json", {"versions": library_versions(), "seed": config.seed})
        wait()
        _fit(config, model, tokenizer, rows, out, [make() for make in makers])
        wait()
    return out / "model"


def _fit(
    config: PolicyConfig, model: Any, tokenizer: Any, rows: Any, out: Path, callbacks: list[Any]
) -> None:
    """Train the model and save it. Every process calls this."""
    from transformers import Trainer

    from rewardsteer.training.arguments import apply_liger, training_arguments
    from rewardsteer.training.showing import LogLines, showing

    ensure_padding_token(tokenizer, model)
    arguments = training_arguments(
        out / "checkpoints", config.optimiser, config.log, config.seed, evaluate=False,
        trainer=config.trainer,
    )
    if arguments.use_liger_kernel:
        apply_liger(model, arguments)
    arguments.label_names = ["labels"]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=SftCollator(tokenizer.pad_token_id),
        callbacks=[LogLines(out / "metrics.jsonl", "policy"), *callbacks],
    )
    with showing(trainer, "policy", bar=config.log.progress, lines=config.log.print_logs):
        trainer.train()
    _save(trainer, config, tokenizer, out / "model")


def _save(trainer: Any, config: PolicyConfig, tokenizer: Any, folder: Path) -> None:
    """Write the model in the type that the base model was saved in. Every process calls this,
    because each may hold a part; the first one writes."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    dtype = torch.float32 if config.base_model is None else saved_dtype(config.base_model)
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Tied weights stay tied.
    cast: dict[Any, torch.Tensor] = {}
    for value in weights.values():
        cast.setdefault((value.data_ptr(), value.shape), value.to(dtype))
    model.save_pretrained(folder, state_dict={
        name: cast[value.data_ptr(), value.shape] for name, value in weights.items()
    })
    settings = read_json(folder / "config.json")
    write_json(folder / "config.json", settings | {"dtype": str(dtype).removeprefix("torch.")})
    save_tokenizer(tokenizer, folder)
