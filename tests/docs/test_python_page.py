"""The Python of docs/python.md and README.md runs as it is, on tiny models in place of names."""

import re
import subprocess
import sys

import pytest

from tests.api.conftest import folders
from tests.docs.commands import ROOT, python_blocks

__all__ = ["folders"]


@pytest.fixture
def place(folders, tmp_path, monkeypatch):
    """A working folder in which the page's names lead to tiny models."""
    for name, source in {
        "POLICY": "policy", "BASE": "base", "out/bt/model": "bt", "out/farma/model": "farma",
        "out/goal/model": "bt",
    }.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(folders / source)
    monkeypatch.chdir(tmp_path)


def test_the_blocks_run(place, capsys):
    blocks = python_blocks(ROOT / "docs" / "python.md")
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["answers"][0].error is None
    assert names["table"].rows.keys() == {"none", "farma"}
    assert "| all |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_lines_of_the_readme_run(folders, tmp_path):
    """As written, in a process of their own, where a tiny model is found under the name of the one
    on the hub: they print two lines, and no other library prints anything."""
    (tmp_path / "HuggingFaceTB").mkdir()
    (tmp_path / "HuggingFaceTB" / "SmolLM2-135M-Instruct").symlink_to(folders / "base")
    block, = python_blocks(ROOT / "README.md")
    assert len(block.splitlines()) <= 10
    (tmp_path / "ten_lines.py").write_text(block + "assert rm.score('a', ['b', 'c']).shape == (2,)")
    done = subprocess.run(
        [sys.executable, "ten_lines.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\[\S+ +\S+\]\n", done.stdout)
    assert len(done.stdout.splitlines()[0].split()) == 2
    assert "rewardsteer" not in done.stdout
    assert "WARNING" not in done.stdout
    assert (tmp_path / "out" / "short" / "model" / "rewardsteer.json").exists()
