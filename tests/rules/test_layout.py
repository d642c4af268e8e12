"""Rules of the code base that a machine can hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rewardsteer.decoding.methods import METHODS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "src").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


LONG_FUNCTIONS = {"run_demo"}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 90, f"{node.name} is too long"
            body = node.body[1:] if ast.get_docstring(node) else node.body
            most = 60 if node.name in LONG_FUNCTIONS else 50
            if body:
                assert body[-1].end_lineno - body[0].lineno + 1 < most, f"{node.name} is too long"


def test_no_drawer_for_odds_and_ends():
    assert not [path for path in FILES if "utils" in path.stem]


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom rewardsteer.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Train language reward models" in result.stdout


@pytest.mark.parametrize("module", [
    "errors", "registry", "records", "outputs", "configuration", "data.config", "data.prepare",
    "data.sources.pairs", "reports.page", "reports.plots", "training.config", "training.recipes",
    "demo.config", "evaluation.diversity", "evaluation.statistics",
])
def test_light_modules_load_no_torch(module):
    code = f"import sys, rewardsteer.{module}; assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_method_is_left_out_of_the_contract():
    """The contract that methods never import each other names each of them."""
    # Python 3.10 has no tomllib.
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'"(rewardsteer\.decoding\.(?:guides|strategies)\.\w+)"', text)
    methods = {METHODS.get(name).__module__ for name in METHODS.names()}
    assert sorted(named) == sorted(methods)
