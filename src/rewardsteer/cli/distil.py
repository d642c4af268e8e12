"""``rewardsteer distil``: train a vocabulary head to imitate a slower guide."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.completion import complete_recipe
from rewardsteer.cli.devices import Device
from rewardsteer.cli.starting import (
    check_model,
    check_out,
    check_reward_model,
    loading,
    say,
)
from rewardsteer.training.recipes import list_recipes, own_file, read_recipe

Recipe = Annotated[
    str,
    typer.Argument(
        help=f"A shipped recipe ({', '.join(list_recipes('distil'))}) or a YAML file.",
        autocompletion=complete_recipe,
    ),
]


def distil_command(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change: dotted.name=value, for example head.rank=16."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Output folder; the model appears in OUT/model.")
    ] = Path("out/distilled"),
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
) -> None:
    """Distil a reward model into a vocabulary head, for guidance with farma.

    The teacher scores the policy's candidates at positions of its own samples.
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.distillation.config import DistilConfig
    from rewardsteer.errors import DataError

    config = load_config(
        DistilConfig, read_recipe(recipe, "distil"), overrides or (), file=own_file(recipe)
    )
    check_model(config.policy, config.base_model)
    check_reward_model(config.teacher)
    for place in (config.prompts, config.records):
        if place is not None and not Path(place).exists():
            raise DataError(f"Expected prompts or records at {place}, there is nothing.")
    check_out(out, resume=resume, overwrite=overwrite)
    loading(config.policy, config.teacher)

    from rewardsteer.distillation.run import distil
    from rewardsteer.models.checkpoint import read_card
    from rewardsteer.progress import progress_bar

    with progress_bar("asking the teacher", "shards") as announce:
        folder = distil(
            config, out, resume=resume, overwrite=overwrite, device=device, announce=announce
        )
    for metric in read_card(folder).metrics:
        say(f"{metric.name} {metric.value:.3f}, {metric.on}")
    say(f"reward model: {folder}")
    say(
        f"next: rewardsteer generate --model {config.policy} --reward-model {folder} "
        "--method farma …"
    )
