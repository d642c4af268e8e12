"""What is kept of a comparison has its figures and none of its texts or places."""

import importlib.util
import json
from pathlib import Path

from rewardsteer.evaluation.runs import over_runs
from tests.evaluation.test_runs import LABELS, write_run

RUNS = Path(__file__).parents[2] / "runs"


def test_figures_over_runs_stay_and_texts_go(tmp_path):
    spec = importlib.util.spec_from_file_location("keep_figures", RUNS / "keep_figures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folders = [tmp_path / f"run-{seed}" for seed in range(2)]
    for seed, folder in enumerate(folders):
        write_run(folder, seed)
        summary = json.loads((folder / "summary.json").read_text())
        summary["judge"] = "/somewhere/seed-0/judge/model"
        (folder / "summary.json").write_text(json.dumps(summary))
        script.keep(folder, tmp_path / "kept" / folder.name)
    kept = [tmp_path / "kept" / folder.name for folder in folders]
    assert over_runs(kept, tmp_path / "a.json") == over_runs(folders, tmp_path / "b.json")
    assert json.loads((kept[0] / "summary.json").read_text())["judge"] == "judge/model"
    for label in LABELS:
        rows = [json.loads(one) for one in (kept[1] / f"{label}.jsonl").read_text().splitlines()]
        assert len(rows) == 20
        assert not any(row["generation"]["completion"] for row in rows)
        assert not any("token_ids" in row["generation"] for row in rows)
        assert len({row["generation"]["prompt"] for row in rows}) == 20
        assert not any(row["generation"]["prompt"].startswith("p") for row in rows)
