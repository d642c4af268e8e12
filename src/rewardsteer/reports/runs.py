"""A page from evaluation folders: result files only, no model is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path

from rewardsteer.errors import DataError
from rewardsteer.outputs import read_json
from rewardsteer.reports.page import write_page
from rewardsteer.reports.plots import Point, scatter
from rewardsteer.reports.sections import Block, Figure, Section, Settings, Table
from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows


def write_runs_page(runs: Sequence[Path], out: Path) -> None:
    """One section a run: table, reward against time, settings.

    Raises:
        DataError: a folder without a summary of methods.
    """
    sections = []
    for index, run in enumerate(runs):
        place = run / "summary.json"
        methods = read_json(place).get("methods") if place.exists() else None
        if not methods:
            raise DataError(
                f"Expected an evaluation in {run} (summary.json with methods), found none; make "
                "one with 'rewardsteer evaluate generation'."
            )
        points = [
            Point(name, 1e3 * f["seconds_per_token"], f["reward"], f.get("reward_stderr", 0.0))
            for name, f in methods.items()
        ]
        blocks: list[Block] = [
            Table(
                "Mean reward ± standard error; difference to the first method with a paired "
                "bootstrap interval; calls, tokens and time per generated token.",
                METHOD_COLUMNS, method_rows(methods),
            ),
            Figure(
                scatter(
                    points, x_label="milliseconds per generated token", y_label="mean reward",
                    log_x=True,
                ),
                "Scatter plot of mean reward against time per token of every method.",
                "What a unit of reward costs.",
            ),
        ]
        if (run / "run.json").exists():
            values = read_json(run / "run.json")
            blocks.append(Settings({name: json.dumps(value) for name, value in values.items()}))
        sections.append(Section(run.name, f"run-{index + 1}", blocks))
    names = ", ".join(run.name for run in runs)
    write_page(out, "Guided generation", f"Evaluations: {names}.", sections)
