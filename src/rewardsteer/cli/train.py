"""``rewardsteer train`` and ``rewardsteer train-policy``."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.training.recipes import list_recipes, read_recipe

Recipe = Annotated[
    str, typer.Argument(help=f"A shipped recipe ({', '.join(list_recipes())}) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change: dotted.name=value, for example rounds=3."),
]
Out = Annotated[Path, typer.Option(help="Output folder; the model appears in OUT/model.")]
Resume = Annotated[bool, typer.Option(help="Go on with an interrupted run in OUT.")]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(help="Go on from this checkpoint (OUT/phases/NN-NAME/checkpoint-N), not from the "
                      "newest."),
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
    from rewardsteer.training.config import TrainConfig

    # Settings are checked before torch is loaded: a typing mistake answers at once.
    config = load_config(TrainConfig, read_recipe(recipe), overrides or ())

    from accelerate import PartialState

    from rewardsteer.quiet import quiet_libraries
    from rewardsteer.training.run import train

    quiet_libraries()
    folder = train(
        config, out, resume=resume, overwrite=overwrite,
        resume_from_checkpoint=resume_from_checkpoint,
    )
    # Processes that leave together without having parted may wait for each other, or abort.
    PartialState().destroy_process_group()
    typer.echo(f"reward model: {folder}", err=True)


def train_policy_command(
    data: Annotated[Path, typer.Option(help="Folder made by 'rewardsteer data prepare'.")],
    tokenizer: Annotated[str, typer.Option(help="Tokenizer folder or hub name.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings: dotted.name=value.")
    ] = None,
    out: Out = Path("out/policy"), overwrite: Overwrite = False,
) -> None:
    """Fine-tune a policy on the SFT set, from a base model or from scratch."""
    from rewardsteer.configuration import load_config
    from rewardsteer.data.store import load_set
    from rewardsteer.quiet import quiet_libraries
    from rewardsteer.training.policy import PolicyConfig, train_policy

    config = load_config(PolicyConfig, {}, overrides or ())
    quiet_libraries()
    rows = load_set(data, "train", "sft")

    from rewardsteer.models.checkpoint import load_tokenizer

    folder = train_policy(config, load_tokenizer(tokenizer), rows, out, overwrite=overwrite)
    typer.echo(f"policy: {folder}", err=True)
