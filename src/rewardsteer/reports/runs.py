"""A page from evaluation folders: result files only, no model is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path

from rewardsteer.errors import DataError
from rewardsteer.outputs import read_json
from rewardsteer.reports.frontiers import (
    AXES,
    FRONTIER_COLUMNS,
    WIN_COLUMNS,
    frontier_rows,
    frontiers,
    win_rows,
)
from rewardsteer.reports.page import write_page
from rewardsteer.reports.sections import Block, Figure, Section, Settings, Table
from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows


def write_runs_page(runs: Sequence[Path], out: Path) -> None:
    """One section a run: tables, reward against what it costs, settings.

    Raises:
        DataError: a folder without a summary of methods.
    """
    sections = []
    for index, run in enumerate(runs):
        place = run / "summary.json"
        content = read_json(place) if place.exists() else {}
        methods = content.get("methods")
        if not methods:
            raise DataError(
                f"Expected an evaluation in {run} (summary.json with methods), found none; make "
                "one with 'rewardsteer evaluate generation'."
            )
        baseline = content.get("baseline", next(iter(methods)))
        blocks: list[Block] = [
            Table(
                f"Mean reward ± standard error; difference to {baseline} with a paired bootstrap "
                "interval; calls, tokens and time per generated token.",
                METHOD_COLUMNS, method_rows(methods),
            ),
            Table(
                "Reward and what it costs, with 95 % intervals.",
                FRONTIER_COLUMNS, frontier_rows(methods),
            ),
            *(
                Figure(
                    svg, f"Mean reward of every method against {AXES[name].label}.",
                    "Bars are 95 % intervals; lines join the weights of one method.",
                )
                for name, svg in frontiers(content).items()
            ),
        ]
        if wins := win_rows(methods):
            blocks.append(Table(
                f"Responses compared with those of {baseline} by a language model; a tie counts "
                "one half, answers without a verdict are left out.",
                WIN_COLUMNS, wins,
            ))
        if (run / "run.json").exists():
            values = read_json(run / "run.json")
            blocks.append(Settings({name: json.dumps(value) for name, value in values.items()}))
        sections.append(Section(run.name, f"run-{index + 1}", blocks))
    names = ", ".join(run.name for run in runs)
    write_page(out, "Guided generation", f"Evaluations: {names}.", sections)
