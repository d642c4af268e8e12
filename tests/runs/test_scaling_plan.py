"""The plan in docs/scaling.md is what its script says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_holds_every_line_of_every_table():
    done = subprocess.run(
        [sys.executable, ROOT / "runs" / "scaling_plan.py"], capture_output=True, text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) > 25
    page = (ROOT / "docs" / "scaling.md").read_text().splitlines()
    assert [line for line in lines if line not in page] == []


def test_the_arithmetic_of_a_small_shape():
    sys.path.insert(0, str(ROOT / "runs"))
    try:
        from scaling_plan import Assumptions, scoring, training
    finally:
        sys.path.pop(0)
    a = Assumptions(layers=2, hidden=10, key_values=5, feed_forward=20, vocabulary=7, pair=0)
    assert a.layer == 2 * 10**2 + 2 * 10 * 5 + 3 * 10 * 20 == 900
    assert a.weights == 2 * 900 + 7 * 10 == 1870
    big = Assumptions(pair=0)
    assert training(big, 8)[1] == f"{16 * big.weights / 1e9:.1f}"  # data parallel shards nothing
    fast = Assumptions(peak=2 * a.body / 0.5 * 100, layers=2, hidden=10, key_values=5,
                       feed_forward=20, vocabulary=7, prompt=17, completion=8, samples=16)
    # 100 tokens a second, 8 + 1 + 16/16 = 10 tokens a row.
    assert scoring(fast, 1, 36_000)[1:5] == ["100", "10", "1.0", "2.5"]
