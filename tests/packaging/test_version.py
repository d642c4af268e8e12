"""One version in all the places that name it."""

import re
from pathlib import Path

import rewardsteer

ROOT = Path(__file__).parents[2]


def test_one_version():
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (.+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert project[1] == cited[1] == rewardsteer.__version__
    assert f"What breaks in {project[1]}" in (ROOT / "CHANGELOG.md").read_text()
