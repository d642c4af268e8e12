"""``rewardsteer card``: the model card, with what evaluations found."""

from pathlib import Path
from typing import Annotated

import typer


def card_command(
    folder: Annotated[Path, typer.Argument(help="Reward model folder.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Output of 'evaluate preference' or 'evaluate correctness', for its figures. "
            "Can be given several times; replaces figures of the same name and data."
        ),
    ] = None,
) -> None:
    """Write the model card (README.md) into a checkpoint, with measured figures."""
    from rewardsteer.evaluation.metric_results import read_metric_results
    from rewardsteer.models.checkpoint import fingerprint, read_card, write_card
    from rewardsteer.models.model_card import MARK, MODEL_CARD

    card = read_card(folder)
    mark = fingerprint(folder)
    figures = {(metric.name, metric.on): metric for metric in card.metrics}
    for run in evaluation or []:
        figures |= {(metric.name, metric.on): metric for metric in read_metric_results(run, mark)}
    write_card(folder, card.model_copy(update={"metrics": list(figures.values())}))
    place = folder / MODEL_CARD
    if MARK in place.read_text(encoding="utf-8"):
        typer.echo(f"model card: {place}", err=True)
    else:
        typer.echo(f"{place} is a text of your own and was left as it is", err=True)
