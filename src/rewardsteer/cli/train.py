"""``rewardsteer train`` and ``rewardsteer train-policy``."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.completion import complete_recipe
from rewardsteer.cli.starting import check_model, check_out, loading, say
from rewardsteer.training.recipes import list_recipes, own_file, read_recipe

Recipe = Annotated[
    str,
    typer.Argument(
        help=f"A shipped recipe ({', '.join(list_recipes())}) or a YAML file.",
        autocompletion=complete_recipe,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change: dotted.name=value, for example rounds=3."),
]
Out = Annotated[Path, typer.Option(help="Output folder; the model appears in OUT/model.")]
Resume = Annotated[bool, typer.Option(help="Continue an interrupted run in OUT.")]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(help="Continue from this checkpoint (OUT/phases/NN-NAME/checkpoint-N), not from "
                      "the newest."),
]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in OUT.")]


def train_command(
    recipe: Recipe, overrides: Overrides = None, out: Out = Path("out/reward-model"),
    resume: Resume = False, resume_from_checkpoint: ResumeFrom = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a reward model.

    Also under a launcher: accelerate launch -m rewardsteer train RECIPE …
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.data.sources import check_paths
    from rewardsteer.data.store import load_manifest
    from rewardsteer.models.places import refuse_no_model
    from rewardsteer.training.config import TrainConfig

    # Settings are checked before torch is imported, so that a typing mistake is reported at once.
    config = load_config(
        TrainConfig, read_recipe(recipe, "train"), overrides or (), file=own_file(recipe)
    )

    resume = resume or resume_from_checkpoint is not None
    if config.prepared is not None:
        load_manifest(Path(config.prepared))
    elif config.data is not None and not resume:
        check_paths(config.data)
    check_model(config.base_model)
    refuse_no_model(config.base_model)
    _check_output(out, resume=resume, overwrite=overwrite)
    loading(config.base_model)

    from rewardsteer.training.run import train

    began = time.monotonic()
    folder = train(
        config, out, resume=resume, overwrite=overwrite,
        resume_from_checkpoint=resume_from_checkpoint,
    )
    _part()
    _summarise(out, folder, config.prepared, time.monotonic() - began)


def _check_output(out: Path, *, resume: bool | None = None, overwrite: bool) -> None:
    """Refuse a folder that is not writable. With a launcher only the first process checks, because
    it may create the folder before other processes arrive here."""

    if os.environ.get("RANK", "0") == "0":
        check_out(out, resume=resume, overwrite=overwrite)


def _part() -> None:
    """Leave the process group of a launcher; otherwise processes may hang or abort when they end
    together."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


def _summarise(out: Path, folder: Path, prepared: str | None, seconds: float) -> None:
    """Print the results and the next command."""
    from rewardsteer.models.checkpoint import read_card

    metrics = read_card(folder).metrics
    for metric in metrics:
        spread = "" if metric.low is None else f" (95 %: {metric.low:.3f} – {metric.high:.3f})"
        say(f"{metric.name} {metric.value:.3f}{spread}, {metric.on}")
    say(f"reward model: {folder} ({timedelta(seconds=round(seconds))})")
    # Only objectives with an accuracy have an evaluation command that reads prepared data.
    if any(metric.name == "accuracy" for metric in metrics):
        say(
            f"next: rewardsteer evaluate preference --reward-model {folder} --data "
            f"{prepared or out / 'data'}"
        )


def train_policy_command(
    data: Annotated[Path, typer.Option(help="Folder made by 'rewardsteer data prepare'.")],
    tokenizer: Annotated[str, typer.Option(help="Tokenizer folder or hub name.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings: dotted.name=value.")
    ] = None,
    out: Out = Path("out/policy"), overwrite: Overwrite = False,
) -> None:
    """Fine-tune a policy on the SFT set, from a base model or from scratch.

    Also under a launcher: accelerate launch -m rewardsteer train-policy …
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.data.store import load_manifest, load_set
    from rewardsteer.data.store_checks import check_tokenizer
    from rewardsteer.training.policy_config import PolicyConfig

    config = load_config(PolicyConfig, {}, overrides or ())
    manifest = load_manifest(data)
    check_model(tokenizer, config.base_model)
    _check_output(out, overwrite=overwrite)
    loading(tokenizer)

    from rewardsteer.training.policy import train_policy

    rows = load_set(data, "train", "sft")

    from rewardsteer.models.checkpoint import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    check_tokenizer(manifest, loaded, data)
    folder = train_policy(config, loaded, rows, out, overwrite=overwrite)
    _part()
    say(f"policy: {folder}")
