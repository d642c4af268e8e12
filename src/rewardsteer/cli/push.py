"""``rewardsteer push``: upload a checkpoint to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer


def push_command(
    folder: Annotated[Path, typer.Argument(help="Reward model folder.")],
    repository: Annotated[str, typer.Argument(help="Repository on the hub, as owner/name.")],
    public: Annotated[
        bool, typer.Option(help="Make the repository public; the default is private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Add the reward model",
    dry_run: Annotated[
        bool, typer.Option(help="List what would be published and upload nothing.")
    ] = False,
) -> None:
    """Publish a checkpoint on the Hugging Face hub: weights, tokenizer and cards, nothing else.

    The token is that of 'hf auth login' or of HF_TOKEN.
    """
    from rewardsteer.integrations.hub import contents, push

    found = contents(folder)
    for name in found.published:
        typer.echo(f"{(folder / name).stat().st_size:>14,}  {name}")
    if found.left_out:
        typer.echo(f"left out: {', '.join(found.left_out)}", err=True)
    if dry_run:
        typer.echo(f"would go to {repository}, {'public' if public else 'private'}", err=True)
        return
    typer.echo(f"published: {push(folder, repository, public=public, message=message)}", err=True)
