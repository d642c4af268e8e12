"""Help and error output of commands.

Help is plain text: names are never cut off, whatever the width of the terminal, and options are
listed under the heading in their ``rich_help_panel``.
"""

import errno
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from rewardsteer.errors import RewardsteerError
from rewardsteer.outputs import reason, remedy

OTHER = "Other options"
# Longer names get a line of their own.
_NAMES = 26
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_DOUBLED = re.compile(r"(?<!\.)\.\.(?=\s|$)")


class Command(TyperCommand):
    """A command whose options are listed under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by heading; options without a heading come last."""
        arguments, sections = [], dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(_plain(*record))
            else:
                heading = getattr(parameter, "rich_help_panel", None) or OTHER
                sections.setdefault(heading, []).append(_plain(*record))
        last = sections.pop(OTHER, [])
        _write(formatter, [("Arguments", arguments), *sections.items(), (OTHER, last)])


class Group(TyperGroup):
    """Prints a user's error as one line on standard error and exits with status 2; lists commands
    in the order in which they are used."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except RewardsteerError as error:
            _refuse(str(error))
        except OSError as error:
            # A full or read-only disk, or another user's file, is not a bug of the program.
            if error.errno in _FORBIDDEN and error.filename:
                _refuse(
                    f"{error.filename} cannot be read or written: {reason(error)}; change its "
                    "permissions, or choose another."
                )
            if error.errno not in _DISK:
                raise
            place = f"{error.filename} cannot be written" if error.filename else "Writing failed"
            _refuse(f"{place}: {reason(error)}; {remedy(error)}.")
        except KeyboardInterrupt:
            command: Any = self.get_command(ctx, ctx.invoked_subcommand or "")
            resumable = any(one.name == "resume" for one in getattr(command, "params", ()))
            hint = "; the same command with --resume goes on" if resumable else ""
            typer.echo(f"interrupted{hint}", err=True)
            sys.exit(130)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in order of work."""
        names = super().list_commands(ctx)
        known = [name for name in getattr(self, "order", ()) if name in names]
        return [*known, *(name for name in names if name not in known)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Commands by heading, each with the first sentence of its help."""
        sections = dict[str, list[tuple[str, str]]]()
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = getattr(command, "rich_help_panel", None)
            heading = heading if isinstance(heading, str) else "Commands"
            sections.setdefault(heading, []).append((name, command.get_short_help_str(200)))
        _write(formatter, sections.items())


def _plain(names: str, text: str) -> tuple[str, str]:
    """An option's names and help: for a flag without its negative name and default, for a
    repeatable option with the type of one value."""
    if "[default: no-" in text:
        names = re.sub(r" / --no-[\w-]+", "", names)
    names = re.sub(r"<list\[(\w+)\]>", lambda kind: f"<{kind[1].lower()}>", names)
    # The bounds are at the end of the help text.
    names = names.replace(" range>", ">")
    return names, re.sub(r"\s*\[default: no-[\w-]+\]", "", text)


def _refuse(message: str) -> NoReturn:
    # Quoted messages of other libraries may already end with a full stop.
    typer.echo(f"error: {_DOUBLED.sub('.', message)}", err=True)
    sys.exit(2)


def _write(
    formatter: Any, sections: Iterable[tuple[str, Sequence[tuple[str, str]]]]
) -> None:
    for heading, records in sections:
        if records:
            with formatter.section(heading):
                formatter.write_dl(records, col_max=_NAMES)
