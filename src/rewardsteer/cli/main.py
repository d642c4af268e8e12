"""The console command. Each command has its own file and imports torch only when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.group import Command, Group
from rewardsteer.cli.starting import prepare_torch

START, TRAIN, MEASURE, USE, PUBLISH = (
    "Start here", "Data and training", "Measuring", "Generating", "Publishing"
)


class _Root(Group):
    """Lists commands in the order in which a newcomer meets them."""

    order = (
        "demo", "data", "train", "train-policy", "distil", "score", "evaluate", "goal-state",
        "calibrate", "doctor", "inspect", "report", "generate", "serve", "card", "push",
    )


app = typer.Typer(
    name="rewardsteer", cls=_Root, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from rewardsteer import __version__

        typer.echo(f"rewardsteer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Train language reward models, measure them, and steer generation with them."""
    prepare_torch()
    _find_here()


def _find_here() -> None:
    """Let ``package.module:Class`` also find modules in the current folder, which is not on a
    console command's path. It is added last, so that it hides no installed package."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # The current folder was deleted.
        return
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _mount() -> None:
    from rewardsteer.cli import data, evaluate
    from rewardsteer.cli.calibrate import calibrate_command
    from rewardsteer.cli.card import card_command
    from rewardsteer.cli.demo import demo_command
    from rewardsteer.cli.distil import distil_command
    from rewardsteer.cli.doctor import doctor_command
    from rewardsteer.cli.generate import generate_command
    from rewardsteer.cli.goal_state import goal_state_command
    from rewardsteer.cli.import_ import import_command
    from rewardsteer.cli.inspect import inspect_command
    from rewardsteer.cli.push import push_command
    from rewardsteer.cli.recipes import recipes_command
    from rewardsteer.cli.report import report_command
    from rewardsteer.cli.score import score_command
    from rewardsteer.cli.serve import serve_command
    from rewardsteer.cli.train import train_command, train_policy_command

    for name, panel, command in (
        ("demo", START, demo_command),
        ("recipes", TRAIN, recipes_command),
        ("train", TRAIN, train_command),
        ("train-policy", TRAIN, train_policy_command),
        ("distil", TRAIN, distil_command),
        ("score", MEASURE, score_command),
        ("goal-state", MEASURE, goal_state_command),
        ("calibrate", MEASURE, calibrate_command),
        ("doctor", MEASURE, doctor_command),
        ("inspect", MEASURE, inspect_command),
        ("report", MEASURE, report_command),
        ("generate", USE, generate_command),
        ("serve", USE, serve_command),
        ("card", PUBLISH, card_command),
        ("import", PUBLISH, import_command),
        ("push", PUBLISH, push_command),
    ):
        app.command(name, cls=Command, rich_help_panel=panel)(command)
    app.add_typer(data.app, name="data", rich_help_panel=TRAIN)
    app.add_typer(evaluate.app, name="evaluate", rich_help_panel=MEASURE)


_mount()
