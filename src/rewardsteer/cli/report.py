"""``rewardsteer report``: one page from the result files of training runs and evaluations."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_writable, say


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that 'train', 'evaluate …', 'inspect' or 'demo' wrote, folders of such "
            "folders, or files of 'evaluate runs'."
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a self-contained HTML page that shows and compares runs."""
    from rewardsteer.errors import DataError, OutputError

    absent = [str(run) for run in runs if not run.exists()]
    if absent:
        raise DataError(f"Expected results, there is no {', '.join(absent)}.")
    if out.is_dir():
        raise OutputError(f"The output {out} is a folder, expected a file name for HTML.")
    check_writable(out)
    say(f"Reading {', '.join(map(str, runs))} …")

    from rewardsteer.reports.runs import write_runs_page

    write_runs_page(runs, out)
    typer.echo(f"report: {out}", err=True)
