"""Every call of scipy is one that the oldest version in pyproject.toml admits.

An installed version that is newer hides a call that the oldest one refuses, so the calls are looked
up in a list that was tried on it.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OLDEST = "1.12"
# What is called, and the keywords it is called with. Before a line is added: does scipy 1.12 take
# it? `make test-lowest` runs the tests on that version.
CALLS: dict[str, set[str]] = {name: set() for name in (
    "optimize.brentq", "special.betainc", "special.expit", "special.gammaln", "special.stdtr",
    "special.stdtrit", "stats.binom.cdf", "stats.norm.ppf", "stats.pearsonr", "stats.sem",
    "stats.spearmanr", "stats.t.pdf", "stats.t.sf",
)}
FOLDERS = ("src", "runs", "benchmarks")
PLACES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def scipy_calls(text: str) -> list[tuple[str, set[str]]]:
    """Functions of scipy that a module calls, with their keywords."""
    tree, names = ast.parse(text), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scipy":
            for one in node.names:
                place = f"{node.module}.{one.name}".removeprefix("scipy.")
                names[one.asname or one.name] = place
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = ast.unparse(node.func).partition(".")
            if head in names:
                name = f"{names[head]}.{rest}" if rest else names[head]
                found.append((name, {one.arg for one in node.keywords if one.arg}))
    return found


def refused(text: str) -> list[str]:
    return [
        f"{name}({', '.join(sorted(keywords))})" for name, keywords in scipy_calls(text)
        if name not in CALLS or not keywords <= CALLS[name]
    ]


def test_the_list_is_of_the_oldest_version():
    assert re.search(rf'"scipy>={re.escape(OLDEST)}"', (ROOT / "pyproject.toml").read_text())


def test_scipy_is_called_as_its_oldest_version_takes_it():
    found = {str(path.relative_to(ROOT)): refused(path.read_text()) for path in PLACES}
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_a_keyword_of_a_later_version_is_found():
    # bootstrap() took random_state until 1.15.
    text = "from scipy import stats as s\n\nlow = s.bootstrap((x,), f, rng=g).confidence_interval"
    assert refused(text) == ["stats.bootstrap(rng)"]
    text = "from scipy.special import expit as f\nf(x, where=y)"
    assert refused(text) == ["special.expit(where)"]
    assert refused("import numpy as np\nnp.mean(x, axis=0)") == []
