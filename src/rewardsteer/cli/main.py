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
