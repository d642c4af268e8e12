"""The console command. Each command lives in its own file and imports torch only when it runs."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from rewardsteer.errors import RewardsteerError


class _Group(TyperGroup):
    """Prints a user's error as one line on standard error and exits with status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RewardsteerError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            sys.exit(130)


app = typer.Typer(
    name="rewardsteer",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train reward models for language, know how good they are, and steer generation.",
)


def _mount() -> None:
    """Commands in the order in which a newcomer meets them."""
    from rewardsteer.cli import data, evaluate
    from rewardsteer.cli.calibrate import calibrate_command
    from rewardsteer.cli.card import card_command
    from rewardsteer.cli.demo import demo_command
    from rewardsteer.cli.generate import generate_command
    from rewardsteer.cli.goal_state import goal_state_command
    from rewardsteer.cli.inspect import inspect_command
    from rewardsteer.cli.push import push_command
    from rewardsteer.cli.report import report_command
    from rewardsteer.cli.score import score_command
    from rewardsteer.cli.serve import serve_command
    from rewardsteer.cli.train import train_command, train_policy_command

    app.command("demo")(demo_command)
    app.add_typer(data.app, name="data")
    app.command("train")(train_command)
    app.command("train-policy")(train_policy_command)
    app.command("goal-state")(goal_state_command)
    app.command("score")(score_command)
    app.command("calibrate")(calibrate_command)
    app.command("generate")(generate_command)
    app.add_typer(evaluate.app, name="evaluate")
    app.command("inspect")(inspect_command)
    app.command("report")(report_command)
    app.command("card")(card_command)
    app.command("push")(push_command)
    app.command("serve")(serve_command)


_mount()
