"""Figures of the benchmarks against published ones, and against rows worked out by hand."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.evaluation.reward_benchmarks.judgebench import JudgeBench
from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
from rewardsteer.evaluation.reward_benchmarks.measuring import controls, figures_of, measure
from rewardsteer.evaluation.reward_benchmarks.processbench import ProcessBench
from rewardsteer.evaluation.reward_benchmarks.resampling import intervals
from rewardsteer.evaluation.reward_benchmarks.rewardbench import SECTIONS, RewardBench
from rewardsteer.evaluation.reward_benchmarks.rewardbench2 import RewardBench2
from rewardsteer.evaluation.reward_benchmarks.rewardmath import RewardMath
from rewardsteer.evaluation.reward_benchmarks.rm_bench import RmBench, difficulties

SHARED = (Path(__file__).parents[3] / "../shared/data/reward_models").resolve()
real = pytest.mark.skipif(not SHARED.exists(), reason="needs the public rows in ../shared/data")


def fixture(name):
    return json.loads((SHARED / "fixtures" / name).read_text())


def item(number, count, subset="all", cluster=None, **truth):
    name = f"{subset}/{number}"
    return Item(name, "?", ("x",) * count, subset, str(cluster or name), truth)


@real
def test_rewardbench_sections_are_the_published_ones():
    case = fixture("rewardbench1_sections.json")
    sums = {name: np.array([value, 1.0]) for name, value in case["subset_accuracy"].items()}
    figures = RewardBench().figures(sums)
    for section, value in case["expected_section"].items():
        assert figures[section] == pytest.approx(value, abs=1e-12)
    assert figures["average"] == pytest.approx(case["expected_mean_of_four"], abs=1e-12)


def test_rewardbench_counts_prior_sets_half_and_leaves_out_what_is_not_there():
    sums = {name: np.array([0.5, 1.0]) for counts in SECTIONS.values() for name in counts}
    prior = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
    whole = RewardBench().figures(sums | {name: np.array([1.0, 1.0]) for name in prior})
    assert whole["average"] == pytest.approx((2 * 4 * 0.5 + 1.0) / 9)
    del sums["donotanswer"]
    part = RewardBench().figures(sums)
    assert "Safety" not in part
    assert "average" not in part
    assert part["Chat"] == 0.5


def test_a_tie_is_no_win():
    items = [item(0, 2, "shp"), item(1, 2, "shp"), item(2, 2, "shp")]
    scores = [np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([0.0, 1.0])]
    assert figures_of(RewardBench(), items, scores)["shp"] == pytest.approx(1 / 3)


@real
def test_rewardbench2_points_and_ties():
    case = fixture("rewardbench2_toy.json")
    for row in case["best_of_4"]:
        items = [item(0, 4, "Math", right=row["num_correct"])]
        found = figures_of(RewardBench2(), items, [np.array(row["scores"])])
        assert found == {"Math": row["result"]}
    rows = case["ties_rows"]
    items = [
        Item(row["id"], "?", ("x",) * len(row["scores"]), "Ties", row["id"],
             {"right": row["num_correct"]})
        for row in rows
    ]
    found = figures_of(RewardBench2(), items, [np.array(row["scores"]) for row in rows])
    assert found["Ties"] == pytest.approx(case["ties_expected"]["score"], abs=1e-12)


@real
def test_rm_bench_difficulties():
    case = fixture("rm_bench_matrix.json")
    found = difficulties(np.array(case["matrix_percent"]))
    assert round(found["hard"], 2) == case["hard"]
    assert round(found["normal"], 2) == case["normal"]
    assert round(found["easy"], 2) == case["easy"]


def test_rm_bench_compares_every_right_response_with_every_wrong_one():
    # Right: 3, 2, 1 by style; wrong: 2.5, 1.5, 1.0. Hard: (0,1) (0,2) (1,2) all win; the last pair
    # of the diagonal ties, which is no win.
    scores = [np.array([3.0, 2.0, 1.0, 2.5, 1.5, 1.0])]
    found = figures_of(RmBench(), [item(0, 6, "chat")], scores)
    assert found["chat, hard"] == 1.0
    assert found["chat, normal"] == pytest.approx(2 / 3)
    assert found["chat, easy"] == 0.0


def test_judgebench_says_b_on_a_tie():
    items = [item(0, 2, "math", first=True), item(1, 2, "math", first=False)]
    tied = [np.array([1.0, 1.0])] * 2
    assert figures_of(JudgeBench(), items, tied)["overall"] == 0.5


@real
def test_processbench_toy():
    case = fixture("processbench_toy.json")
    items = [
        item(number, len(row["step_scores"]), "gsm8k", label=row["label"])
        for number, row in enumerate(case["rows"])
    ]
    scores = [np.array(row["step_scores"]) for row in case["rows"]]
    found = figures_of(ProcessBench(), items, scores)
    assert found["gsm8k, F1"] == case["f1"]
    assert found["gsm8k, error"] == case["acc_error"]
    assert found["gsm8k, correct"] == case["acc_correct"]


@real
@pytest.mark.parametrize("part", ["full", "subset400"])
def test_prmbench_predictors_are_those_that_its_own_code_gives(part, tmp_path):
    files = sorted(SHARED.glob("prmbench/*.jsonl.gz"))
    rows = [
        line for file in files if (file.name == "subset400.jsonl.gz") == (part == "subset400")
        for line in gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
    ]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(rows))
    benchmark, items = load_benchmark("prmbench", place)
    for name, expected in fixture("prmbench_baselines.json")[part].items():
        assert len(items) == expected["rows"]
        scores = [
            np.array([1.0 if name == "all_right" else float(len(step) % 2 == 0)
                      for step in one.completions])
            for one in items
        ]
        found = figures_of(benchmark, items, scores)
        assert found["F1"] == pytest.approx(expected["f1"], abs=1e-6)
        assert found["negative F1"] == pytest.approx(expected["negative_f1"], abs=1e-6)
        assert found["PRMScore"] == pytest.approx(expected["prm_score"], abs=1e-6)
        assert found["first error accuracy"] == pytest.approx(
            expected["first_error_acc"], abs=1e-6
        )
        for kind, (right, _, mean) in expected["by_class_f1_negf1_mean"].items():
            own = right if kind == "multi_solutions" else mean
            assert found[kind] == pytest.approx(own, abs=1e-6)


_AGGREGATES = {
    "normal": lambda own: own, "min": min, "max": max, "prod": np.prod, "mean": np.mean,
    "last": lambda own: own[-1],
}


@real
def test_rewardmath_figures_of_recorded_scores_are_the_published_ones():
    checked = 0
    for file, expected in fixture("rewardmath_expected.json")["files"].items():
        place = SHARED / "rewardmath/results_RewardMATH" / f"{file}.gz"
        if not place.exists() or "pairwise" in file:
            continue
        rows = json.loads(gzip.decompress(place.read_bytes()))
        for rule, figures in expected.items():
            if rule not in _AGGREGATES:
                continue
            items, scores = [], []
            for number, row in enumerate(rows):
                right = row["solution_reference"].index("human_to_GPT-4")
                own = [float(_AGGREGATES[rule](one)) for one in row["score"]]
                scores.append(np.array([own.pop(right), *own]))
                items.append(item(number, len(row["score"])))
            found = figures_of(RewardMath(), items, scores)
            assert round(100 * found["accuracy"], 2) == figures["acc"], (file, rule)
            assert round(100 * found["accuracy with ties"], 2) == figures["acc_with_tie"]
            assert round(100 * found["mean reciprocal rank"], 2) == figures["mrr"]
            checked += 1
    assert checked >= 20


def test_ppe_pairs_and_best_of_k(tmp_path):
    row = {"question_id": "q", "model_name": "m", "prompt": "?",
           "scores": [True, False, False, True], "sampled_conflict_pairs": [[0, 1], [2, 3], [1, 0]],
           **{f"response_{number}": str(number) for number in range(1, 5)}}
    file = tmp_path / "PPE-MATH-Best-of-K.jsonl"
    file.write_text(json.dumps(row) + "\n")
    benchmark, items = load_benchmark("ppe", file)
    found = figures_of(benchmark, items, [np.array([0.9, 0.5, 0.7, 0.7])])
    # Right above wrong in the first and the third pair; the second is a tie.
    assert found["MATH"] == pytest.approx(2 / 3)
    # Of four pairs within the row three are in order and one is a tie.
    assert found["MATH, AUC within rows"] == pytest.approx(3.5 / 4)
    assert found["MATH, best of 1"] == 0.5
    assert found["MATH, best of 4"] == 1.0
    # By the pair that is drawn; a tie between a right and a wrong one counts one half.
    pairs = {(0, 1): 1, (0, 2): 1, (0, 3): 1, (1, 2): 0, (1, 3): 1, (2, 3): 0.5}
    assert found["MATH, best of 2"] == pytest.approx(np.mean(list(pairs.values())))
    with pytest.raises(DataError, match="published in several data sets"):
        load_benchmark("ppe")


def test_ppe_pairs_of_a_set_are_pooled_and_the_others_are_means_over_rows(tmp_path):
    rows = [
        {"question_id": name, "model_name": "m", "prompt": "?", "scores": [True, False],
         "sampled_conflict_pairs": pairs, "response_1": "1", "response_2": "2"}
        for name, pairs in (("q", [[0, 1]]), ("r", [[0, 1]] * 3))
    ]
    file = tmp_path / "PPE-MATH-Best-of-K.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark, items = load_benchmark("ppe", file)
    found = figures_of(benchmark, items, [np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    assert found["MATH"] == 1 / 4
    assert found["MATH, AUC within rows"] == found["MATH, best of 2"] == 1 / 2


def test_ppe_human_preference_leaves_ties_out(tmp_path):
    rows = [
        {"question_id": str(number), "prompt": "?", "response_1": "a", "response_2": "b",
         "winner": winner}
        for number, winner in enumerate(["model_a", "model_b", "tie", "tie (bothbad)", "model_b"])
    ]
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark, items = load_benchmark("ppe", file)
    assert [one.id for one in items] == [f"human preference/{number}" for number in (0, 1, 4)]
    found = figures_of(benchmark, items, [np.array(one) for one in ([1, 0], [1, 0], [0, 1])])
    assert found == {"human preference": pytest.approx(2 / 3)}
    file.write_text(json.dumps(rows[0] | {"winner": "first"}) + "\n")
    with pytest.raises(DataError, match=r"expected model_a, model_b or a tie as winner"):
        load_benchmark("ppe", file)


def test_intervals_resample_clusters():
    rng = np.random.default_rng(0)
    items = [item(number, 2, "math", cluster=number // 10, first=True) for number in range(400)]
    luck = np.repeat(rng.random(40) < 0.5, 10)
    scores = [np.array([1.0, 0.0]) if won else np.array([0.0, 1.0]) for won in luck]
    found = intervals(measure(JudgeBench(), items, scores))["overall"]
    share = luck.mean()
    # 40 clusters that win or lose as one.
    width = 2 * 1.96 * np.sqrt(share * (1 - share) / 40)
    assert found.value == pytest.approx(share)
    assert found.high - found.low == pytest.approx(width, rel=0.15)


def test_controls_read_nothing():
    items = [Item("a", "?", ("long answer", "short"), "shp", "a"),
             Item("b", "?", ("no", "longer"), "shp", "b")]
    found = controls(RewardBench(), items)
    assert found["length"]["shp"] == 0.5
    assert 0.3 < found["random"]["shp"] < 0.7
