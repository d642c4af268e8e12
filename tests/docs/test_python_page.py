"""The Python of the pages runs as it is, on tiny models in place of names.

What is left out needs a server (tests/serving, tests/models/remote) or is part of a trainer's
script (tests/integrations).
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardsteer.models.kinds import load_scorer
from tests.api.conftest import folders
from tests.chat import save_classifier
from tests.docs.commands import ROOT, python_blocks
from tests.models.kinds.published import save_pair_encoder

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


# Page → its blocks that run, in one space of names; what their readers have beside the models.
GIVEN = {"prompts": ["a", "b"], "first": ["4", "5"], "second": ["5", "4"]}
OTHERS = {
    "chat.md": (0, 1), "commands.md": (0,), "decoding.md": (0,), "doctor.md": (0,),
    "extending.md": (0, 1, 2, 3, 4),
    "process.md": (0, 1), "reward_models.md": (0, 1, 4), "rlhf.md": (1, 2),
}


@pytest.fixture
def more(place, folders):
    """Further models under the names of the pages."""
    here = Path.cwd()
    for name, source in {
        "FOLDER": "bt", "FARMA": "farma", "REWARD": "farma", "HELPFUL": "farma",
        "HARMLESS": "farma",
        "out/reward": "bt", "DPO_POLICY": "policy", "SFT_MODEL": "base",
    }.items():
        (here / name).symlink_to(folders / source)
    (here / "llm-blender").mkdir()
    save_pair_encoder(here / "llm-blender" / "PairRM-hf")
    (here / "out" / "process").mkdir()
    shutil.copytree(folders / "bt", here / "out" / "process" / "model")
    card = here / "out" / "process" / "model" / "rewardsteer.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"reading": "step_logit"}))
    save_classifier(here / "chat", "chatml")


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS)
def test_the_blocks_of_other_pages_run(page, more):
    blocks = python_blocks(ROOT / "docs" / page)
    names = {
        **GIVEN, "folder": "chat", "scorer": load_scorer("out/bt/model"),
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "AutoTokenizer": AutoTokenizer,
        "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    }
    for number in OTHERS[page]:
        # Two GPUs are the page's example of devices.
        block = re.sub(r"cuda:\d", "cpu", blocks[number])
        exec(compile(block, f"docs/{page}", "exec"), names)


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
