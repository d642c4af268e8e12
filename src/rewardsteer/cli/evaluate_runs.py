"""``rewardsteer evaluate runs``: finished comparisons of several runs of one recipe, together."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_writable, say


def runs_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER FOLDER…",
            help="Outputs of 'evaluate generation' on the same prompts, one per training run or "
            "seed, with the same labels of methods.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("out/runs.json"),
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.")] = False,
) -> None:
    """Mean, spread and intervals over training runs or seeds that were evaluated one by one."""
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.runs import over_runs
    from rewardsteer.outputs import read_json
    from rewardsteer.reports.tables import SEED_COLUMNS, print_table, seed_rows

    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists; replace it with --overwrite or choose another --out.")
    check_writable(out)
    methods = over_runs(folders, out)
    title = f"{len(folders)} runs, {read_json(out)['intervals']}"
    print_table(title, SEED_COLUMNS, seed_rows(methods))
    say(f"written to {out}")
