"""What scripts outside the package import from it exists; nothing else reads most of them."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path for folder in ("runs", "benchmarks", "fuzz")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_exist(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.partition(".")[0] == "rewardsteer":
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(
                    f"{node.module}.{name.name}"
                ), f"{node.module} has no {name.name}"
