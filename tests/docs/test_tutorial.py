"""docs/tutorial.md, its shell blocks as they are written, in an empty folder, by a shell.

A tiny model replaces SmolLM2; the block that downloads it (``bash``, the others are ``sh``) is left
out. tests/real trains and steers with the real one.
"""

import os
import re
import shutil
import subprocess

import pytest

from rewardsteer.models.checkpoint import read_card
from rewardsteer.outputs import read_json
from tests.docs.commands import ROOT, blocks
from tests.fakes import save_tiny


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the tutorial's blocks are for bash")
def test_tutorial(tmp_path, warm):
    parts = [text for language, text in blocks(ROOT / "docs" / "tutorial.md") if language == "sh"]
    assert len(parts) == 9
    model = save_tiny(tmp_path / "model", padding_side="left")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "MODEL": str(model), "PATH": f"{warm}:{os.environ['PATH']}",
    }
    desk = tmp_path / "desk"
    desk.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(parts)], cwd=desk, env=environment,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert len((desk / "answers.jsonl").read_text().splitlines()) == 4
    page = (desk / "report.html").read_text()
    assert all(label in page for label in ("none", "best of 4", "guided"))
    summary = read_json(desk / "out" / "evaluation" / "summary.json")
    assert summary
    assert len((desk / "guided.jsonl").read_text().splitlines()) == 200
    alone, guided = re.findall(r"^(?:alone|guided)\s+([01]\.\d\d)$", done.stdout, re.MULTILINE)
    # Runs this short show the commands, not a gain.
    assert float(alone) > 0
    assert float(guided) > 0
    assert read_card(desk / "out" / "bt" / "model").metrics[-1].on == "held-out pairs"
