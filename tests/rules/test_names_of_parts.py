"""Heads, objectives and methods are named in their registry; other files ask what they can do."""

import ast
from pathlib import Path

import pytest

from rewardsteer.decoding.methods import METHODS
from rewardsteer.models.heads import HEADS
from rewardsteer.objectives import OBJECTIVES

PACKAGE = Path(__file__).parents[2] / "src" / "rewardsteer"
# Words that also mean something else: a value in a message, columns, settings and attributes.
WORDS = {"none", "labels", "attributes", "partial", "process", "beam", "args"}
# Who may name a part beside its own file: the registry; recipes and the demo, which choose parts;
# kinds, which say what a foreign model's head is; and methods, which say what they need and what
# they were published with.
PLACES = (
    "models/heads/__init__.py", "objectives/__init__.py", "decoding/methods.py",
    "training/recipes.py", "demo/", "models/kinds/", "decoding/guides/", "decoding/strategies/",
)
# Names that a file may use, and why.
ALLOWED = {
    # A kind of foreign reward model has the name of the method that it was published with.
    ("models/published.py", "farma"),
    # The run that this objective was made for.
    ("distillation/run.py", "distillation"),
    # The key of a tokenizer's hash in a manifest.
    ("data/prepare.py", "vocabulary"), ("data/store_checks.py", "vocabulary"),
}


def constants(tree):
    """Strings of a module that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value) for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    return [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("registry", [HEADS, OBJECTIVES, METHODS], ids=lambda one: one.kind)
def test_no_other_file_names_a_part(registry):
    own = {name: registry.get(name).__module__.replace(".", "/") for name in registry.names()}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(PLACES):
            continue
        for node in constants(ast.parse(path.read_text())):
            name = node.value
            if name in WORDS or name not in own or (place, name) in ALLOWED:
                continue
            if f"rewardsteer/{place}" != f"{own[name]}.py":
                found.append(f"{place}:{node.lineno} names {name!r}")
    assert not found, "ask the part what it gives or needs: " + "; ".join(found)


def test_every_allowed_name_is_used():
    for place, name in ALLOWED:
        tree = ast.parse((PACKAGE / place).read_text())
        assert any(node.value == name for node in constants(tree)), f"{place} has no {name!r}"
