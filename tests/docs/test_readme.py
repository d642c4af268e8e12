"""README.md: its length, its links, and its tables from files (its Python: test_python_page.py)."""

import importlib.util
import json
import re

import numpy as np
import pytest

from rewardsteer.evaluation.statistics import two_level
from rewardsteer.evaluation.statistics.seeds import SeedFigure
from rewardsteer.models.checkpoint import CARD, CheckpointCard, MetricResult
from rewardsteer.models.heads.config import HeadConfig
from tests.docs.commands import ROOT

README = ROOT / "README.md"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Scripts import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / "runs"))


def script(name):
    """A script of runs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "runs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_short():
    assert len(README.read_text().split()) <= 900


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 10
    assert not [link for link in local if not (ROOT / link).exists()]


def test_no_package_index_is_promised():
    """Until one has the package, it is installed from a clone or an address."""
    text = README.read_text()
    assert "No package index has rewardsteer yet" in text
    named = re.findall(r"pip install (?:-\S+ )*[\"']?rewardsteer(?:\[[^]]*\])?(.{0,3})", text)
    assert named == [" @ "]


def test_pages_have_the_tables_that_the_files_give():
    tables = script("readme_tables")
    for page in tables.PAGES:
        text = page.read_text()
        assert "<!-- table: " in text
        assert tables.written(text) == text, "run: python runs/readme_tables.py"
    with pytest.raises(ValueError, match="Expected a table of guidance"):
        tables.written("<!-- table: unknown -->\n<!-- end -->")


def test_sentences_follow_from_the_files():
    """What the text says of results is what the result files hold."""
    text = " ".join(README.read_text().split())
    results = ROOT / "runs" / "results"
    solutions = json.loads((results / "smollm2_solutions.json").read_text())["benchmarks"]["gsm8k"]
    within = [one for plan in solutions["plans"].values() for one in plan.get("within_source", ())]
    assert f"AUROC is at chance ({min(within):.2f}–{max(within):.2f})" in text
    guidance = json.loads((results / "smollm2_guidance.json").read_text())
    assert "greedy decoding has a higher mean reward than every guide" in text
    greedy = guidance["methods"]["none greedy"]["reward"]
    assert greedy == max(one["reward"] for one in guidance["methods"].values())
    assert "hardly better than chance on held-out ones" in text
    accuracies = {name: np.mean(own) for name, own in guidance["accuracy"].items()}
    assert all(0.45 < accuracies[name] < 0.58 for name in ("bt", "pargs", "genarm", "farma"))
    assert "reward models of 360 preference pairs" in text
    assert "GUIDE=360 " in (ROOT / "runs" / "smollm2_guidance.sh").read_text()


def test_shares_of_the_teachers_gain():
    text = " ".join(README.read_text().split())
    shares = script("summarise_guidance")
    runs = [json.loads(place.read_text())
            for place in sorted((ROOT / "runs/results/reviews").glob("guidance-*.json"))]
    plain = shares.right(runs, "guidance", "none")

    def at_target(name):
        row = f"{name} @ {runs[0]['targets'][-1]:g}"
        return [run["guidance"][row] for run in runs], shares.right(runs, "guidance", row)

    rows, answers = at_target("pargs")
    assert all(one["calls"] == 8 for one in rows)
    assert two_level(answers - plain).low > 0
    for name, sentence in (
        ("distilled rank 16", "from PARGS keeps {:.2f} of its gain (95 %: {:.2f}–{:.2f})"),
        ("zeros max", "FaRMA from zeros {:.2f} ("),
    ):
        rows, answers = at_target(name)
        assert all(one["calls"] == 1 for one in rows)
        teacher = shares.teacher_at(runs, [one["kl"] for one in rows])
        share = shares.kept(answers, teacher, plain)
        assert sentence.format(share.value, share.low, share.high) in text


def test_table_of_guidance():
    cost = {"rm_calls_per_token": 1.0, "seconds_per_token": 0.02}
    gain = SeedFigure(0.5, 0.25, 0.75, 0.1).figures("reward_gain")
    farma = SeedFigure(1.5, 1.0, 2.0, 0.2).figures("reward") | gain | cost
    none = SeedFigure(1.0, 0.5, 1.5, 0.1).figures("reward") | cost | {"rm_calls_per_token": 0.0}
    text = script("smollm2_tables").guidance({
        "methods": {"none": none, "farma w=0.5": none | gain, "farma w=1": farma},
        "runs": ["a", "b", "c"], "intervals": "95 % over 60 prompts and 3 runs",
        "accuracy": {"judge": [0.6, 0.65], "bt": [0.5], "pargs": [0.5], "farma": [0.55]},
    })
    assert "the judge 0.625 (0.600–0.650), Bradley-Terry 0.500, PARGS 0.500, FaRMA 0.550." in text
    assert "3 seeds, 95 % over 60 prompts and 3 runs" in text
    assert text.splitlines()[2:] == [
        "|method|reward|gain, 95 %|RM calls per token|ms per token|", "|---|---|---|---|---|",
        "|none|1.00 ± 0.10||0.00|20|", "|farma|1.50 ± 0.20|+0.25…+0.75|1.00|20|",
    ]


def test_accuracies_of_the_studys_reward_models(tmp_path):
    for seed, judge in enumerate((0.6, 0.65)):
        for name, value in (("judge", judge), ("bt", 0.5)):
            folder = tmp_path / f"seed-{seed}" / name / "model"
            folder.mkdir(parents=True)
            metric = MetricResult(name="accuracy", on="held-out pairs", value=value, count=204)
            card = CheckpointCard(head=HeadConfig(), metrics=[metric])
            (folder / CARD).write_text(card.model_dump_json())
    found = script("smollm2_accuracy").accuracies(tmp_path)
    assert found == {"judge": [0.6, 0.65], "bt": [0.5, 0.5]}


def test_table_of_all_methods():
    own = {
        **SeedFigure(1.0, 0.5, 1.5, 0.1).figures("reward"), "rm_calls_per_token": 1.0,
        **SeedFigure(0.5, 0.25, 0.75, 0.1, 0.01).figures("reward_gain"), "distinct_2": 0.9,
        "lm_tokens_per_token": 2.0, "rm_tokens_per_token": 3.0, "seconds_per_token": 0.02,
    }
    text = script("smollm2_tables").guidance_all({
        "methods": {"farma w=2": own}, "runs": ["a", "b"], "intervals": "95 %"})
    assert text.endswith("|farma w=2|1.00 ± 0.10|+0.25…+0.75|0.010|1.00|2.00|3.00|20|0.90|")


def test_table_of_solutions():
    def run(auroc, **more):
        return {"svamp": {
            "questions": 150, "solutions": 300, "majority_accuracy": 0.9, "auroc": auroc,
            "best_of_accuracy": 0.5, "auroc_by_percentile": {"reward": [
                {"percentile": 0.8, "auroc": 0.25}]},
            "controls": {"length": {"auroc": 0.5}, "within_question": 0.75}, **more,
        }}

    def gains(reward, similarity):
        return {"reward": {"gain": reward}, "similarity": {"gain": similarity}}

    figures = script("summarise_goal").figures({
        "baseline": [run(0.5), run(0.75)],
        "goal": [
            run(0.5, auroc_similarity=0.75, against_baseline=gains(0.0, 0.25)),
            run(0.5, auroc_similarity=0.5, against_baseline=gains(0.25, 0.25)),
        ],
    })
    figures |= {"base": "Base", "pairs": 1200}
    text = script("smollm2_tables").solutions(figures)
    assert text.startswith("`make study-b SEED=0` and on: Base, 1,200 training pairs, 2 seeds ")
    assert text.splitlines()[4:] == [
        "|model|AUROC|gain, 95 %|at 80 %|within source|within question|best of n|",
        "|---|---|---|---|---|---|---|",
        "|Bradley-Terry|0.625 (0.500–0.750)||0.250 (0.250–0.250)||0.750 (0.750–0.750)"
        "|0.500 (0.500–0.500)|",
        # Student's quantile for one degree of freedom is 12.706.
        "|goal-conditioned|0.500 (0.500–0.500)|-1.463…+1.713|0.250 (0.250–0.250)|"
        "|0.750 (0.750–0.750)|0.500 (0.500–0.500)|",
        "|goal-conditioned, similarity|0.625 (0.500–0.750)|+0.250…+0.250|||||",
        "|*length alone*|0.500 (0.500–0.500)||||||",
        "|*majority vote*||||||0.900 (0.900–0.900)|",
    ]


def test_short_table_of_solutions():
    own = {
        "questions": 53, "controls": {"source": [0.75, 0.8]},
        "plans": {"baseline": {"auroc": [0.5, 0.625], "within_source": [0.5, 0.5]},
                  "baseline, similarity": {"auroc": [0.5, 0.625]}},
    }
    text = script("smollm2_tables").solutions_short(
        {"base": "Base", "pairs": 1000, "seeds": 2, "benchmarks": {"gsm8k": own}}
    )
    assert text.splitlines()[2:] == [
        "|model|AUROC|within source|", "|---|---|---|",
        "|Bradley-Terry|0.500–0.625|0.500–0.500|", "|Bradley-Terry, similarity|0.500–0.625||",
        "|*source alone*|0.750–0.800||",
    ]
