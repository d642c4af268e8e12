"""What messages advise: a caller in Python has no flags of the command line."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "rewardsteer"
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if "cli" not in path.parts]
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# What may hold a flag: words in parentheses behind what works everywhere, and a quoted command.
ASIDE = re.compile(r"\([^()]*\)|'(?:rewardsteer|accelerate|vllm) [^']*'")


def messages(text):
    """Texts of a module that are no docstrings, with ``{}`` for what is filled in."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value) for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body and isinstance(node.body[0], ast.Expr)
    }
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            yield node.lineno, "".join(
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (
            id(node) not in docstrings | inner
        ):
            yield node.lineno, node.value


def advises_a_flag_alone(message):
    if FLAG.fullmatch(message) or message == "--no-{}":
        return False  # A word of a command, no message.
    left = message
    while (less := ASIDE.sub("", left)) != left:
        left = less
    return FLAG.search(left) is not None


def test_messages_name_what_works_in_python_too():
    """``resume=True (--resume)``, not ``--resume``: the flag stands in parentheses behind words
    that a caller in Python can follow, or within a quoted command."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {message}" for path in FILES
        for line, message in messages(path.read_text()) if advises_a_flag_alone(message)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("message", "wrong"), [
    ("pass --resume to go on", True), ("pass resume=True (--resume) to go on", False),
    ("'rewardsteer generate --resume' goes on", False), ("--model", False), ("a -- b", False),
    ("another (--host, --port)", False), ("it's --goal that's wrong", True),
])
def test_the_rule_itself(message, wrong):
    assert advises_a_flag_alone(message) is wrong
