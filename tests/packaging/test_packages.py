"""Wheel and sdist: what they hold, and that each works installed alone, without the dev tools.

The build needs hatchling in the environment, the installations nothing: no index is asked. The
packages that rewardsteer depends on are those of the environment; those of the extra ``dev`` alone
cannot be imported.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rewardsteer"
# Modules, recipes, templates, styles and scripts of the pages, py.typed.
FILES = {
    path.relative_to(ROOT / "src").as_posix() for path in SOURCE.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
IMPORTS = """
import rewardsteer, sys
assert rewardsteer.__file__.startswith(sys.argv[1]), rewardsteer.__file__
for name in rewardsteer.__all__:
    assert getattr(rewardsteer, name) is not None, name
"""


def run(*words, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT.parent,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """``{"wheel": path, "sdist": path}``."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(out)], cwd=ROOT,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


def dev_only():
    """Modules of the extra ``dev`` that rewardsteer itself does not require."""
    required = importlib.metadata.requires("rewardsteer")
    name = re.compile(r"[\w.-]+")
    own = {name.match(one)[0].lower() for one in required if "extra ==" not in one}
    dev = {name.match(one)[0].lower() for one in required if re.search(r"extra == .dev", one)}
    return {one.replace("-", "_") for one in dev - own}


@pytest.mark.slow
def test_both_hold_every_file(built):
    assert {path.split(".")[-1] for path in FILES} >= {"py", "yaml", "j2", "css", "js", "typed"}
    with zipfile.ZipFile(built["wheel"]) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == FILES
    with tarfile.open(built["sdist"]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in FILES} <= inside
    assert {"README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "CHANGELOG.md"} <= inside
    assert built["sdist"].stat().st_size < 10 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_works_installed_alone(built, kind, tmp_path):
    place = tmp_path / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
        "--target", place, built[kind])
    blocked = dev_only()
    assert {"pytest", "ruff", "trl", "fastapi"} <= blocked
    (place / "sitecustomize.py").write_text(
        f"import sys\nfor name in {sorted(blocked)!r}:\n    sys.modules[name] = None\n"
    )
    variables = {"PYTHONPATH": str(place)}
    command = place / "bin" / "rewardsteer"
    assert "Train language reward models" in run(command, "--help", **variables)
    assert "pairs/farma" in run(command, "recipes", **variables)
    run("-c", IMPORTS, str(place), **variables)
