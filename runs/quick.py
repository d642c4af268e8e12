"""Runs the tests that a change affects: ``make quick``, or ``make quick SINCE=main~3``.

The change is the difference to a commit (by default the last one), uncommitted files included. Its
tests are changed tests, tests that import a changed module by name, and tests/rules.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(since: str) -> int:
    """Run them; the exit status is pytest's."""
    changed = set(changed_files(since))
    modules = {name for path in changed if (name := module_of(path))}
    tests = [
        str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.relative_to(ROOT).as_posix() in changed or modules & set(imported(path))
    ]
    print(f"{len(changed)} files changed since {since}: {len(tests)} test files", flush=True)
    command = [
        sys.executable, "-m", "pytest", "-n", "auto", "--maxprocesses", "8", "--dist", "loadgroup",
        "-m", "not slow", "tests/rules", *tests,
    ]
    return subprocess.run(command, cwd=ROOT).returncode  # noqa: S603


def changed_files(since: str) -> Iterator[str]:
    """Paths that differ from a commit, new files included."""
    for command in (
        ["git", "diff", "--name-only", since], ["git", "ls-files", "--others", "--exclude-standard"]
    ):
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
        yield from found.stdout.split()


def module_of(path: str) -> str:
    """The module name of a file of the package or of the tests' helpers; "" for other files."""
    if not path.endswith(".py") or path.split("/")[-1].startswith("test_"):
        return ""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports, with those of ``from package import module``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "HEAD~1"))
