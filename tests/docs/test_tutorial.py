"""docs/tutorial.md, its shell blocks as they stand, in an empty folder, by a shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rewardsteer.models.checkpoint import read_card
from rewardsteer.outputs import read_json
from tests.docs.commands import ROOT, blocks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the tutorial's blocks are for bash")
def test_tutorial(tmp_path):
    parts = [text for language, text in blocks(ROOT / "docs" / "tutorial.md") if language == "sh"]
    assert len(parts) >= 7
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(parts)], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    # It ends with guided text and a report.
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 200
    page = (tmp_path / "report.html").read_text()
    assert all(label in page for label in ("none", "best of 4", "guided"))
    summary = read_json(tmp_path / "out" / "evaluation" / "summary.json")
    assert summary
    shares = re.findall(r"^(?:none|best_of_4|guided)\s+[01]\.\d\d$", done.stdout, re.MULTILINE)
    assert len(shares) == 3
    assert read_card(tmp_path / "out" / "bt" / "model").metrics[-1].on == "held-out pairs"
