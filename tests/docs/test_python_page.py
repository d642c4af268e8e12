"""docs/python.md: its blocks run as they are, in order, on tiny models in place of the names."""

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
