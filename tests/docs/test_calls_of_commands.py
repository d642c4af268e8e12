"""docs/python.md names a call for every command, and each takes what the page gives it."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command

from rewardsteer.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
ROWS = re.findall(r"^\| `([a-z -]+)` \| (.*rewardsteer\..*) \|$", PAGE.read_text(), re.M)
CALLS = [call for _, cell in ROWS for call in re.findall(r"`(rewardsteer\.[^`]*\))`", cell)]


def commands(group, *names):
    """Names of all commands that do something."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, *names, name)
        else:
            yield " ".join([*names, name])


def test_every_command_has_a_call():
    assert sorted(name for name, _ in ROWS) == sorted(commands(get_command(app)))


def found(place):
    """What a dotted place is: modules as far as there are any, then attributes."""
    parts = place.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return value
    raise AssertionError(place)


@pytest.mark.parametrize("call", CALLS)
def test_it_takes_the_arguments(call):
    node = ast.parse(call, mode="eval").body
    function = found(ast.unparse(node.func))
    inspect.signature(function).bind(*node.args, **{one.arg: one for one in node.keywords})
