"""docs/examples/first_steps.ipynb: its code cells in order, on tiny models for the demo's."""

import json

import pytest

from tests.api.conftest import folders
from tests.docs.commands import ROOT

__all__ = ["folders"]

NOTEBOOK = ROOT / "docs" / "examples" / "first_steps.ipynb"


@pytest.mark.slow
def test_the_cells_run(folders, tmp_path, monkeypatch, capsys):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) == 10
    assert not any(cell.get("outputs") for cell in cells), "save the notebook without outputs"
    demo = tmp_path / "demo-out"
    for name, source in {
        "policy": "policy", "reward_models/plain": "bt", "reward_models/pargs": "bt",
        "reward_models/farma": "farma",
    }.items():
        (demo / name).mkdir(parents=True)
        (demo / name / "model").symlink_to(folders / source)
    (tmp_path / "docs" / "examples").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "examples")
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    assert names["table"].rows.keys() == {"none", "farma"}
    assert "| all |" in capsys.readouterr().out
