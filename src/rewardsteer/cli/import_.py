"""``rewardsteer import``: convert checkpoints of published code to reward models."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import check_model, check_writable, loading
from rewardsteer.cli.template import TemplateOption, read_template


def import_command(
    source: Annotated[
        Path,
        typer.Argument(help="Published checkpoint: of FaRMA, goal-conditioned-rm, OpenRLHF, …"),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    template: TemplateOption = None, kind: KindOption = None, kind_option: KindOptions = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold a low-rank vocabulary head into a full one, for "
                           "vLLM.")
    ] = False,
) -> None:
    """Convert a published checkpoint to a folder of rewardsteer."""
    from rewardsteer.errors import CheckpointError, OutputError

    written = read_template(template)
    of_kind = read_kind(kind, kind_option)
    if not source.is_dir():
        raise CheckpointError(f"Expected a model folder at {source}, there is none.")
    if out.exists():
        raise OutputError(f"The output {out} exists; choose another.")
    check_model(source)
    check_writable(out)
    loading(source)

    from rewardsteer.data.template import stored_template
    from rewardsteer.models.published import import_checkpoint

    card = import_checkpoint(source, out, written, folded=fold, **of_kind)
    read = stored_template(card.template)
    typer.echo(f"reward model: {out} ({card.head.kind} head, template {read.kind})", err=True)
