"""``rewardsteer report``: one page from the result files of trainings and evaluations."""

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that 'train', 'evaluate …', 'inspect' or 'demo' wrote, or a folder of "
            "such folders."
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a self-contained HTML page that shows and compares runs."""
    from rewardsteer.reports.runs import write_runs_page

    write_runs_page(runs, out)
    typer.echo(f"report: {out}", err=True)
