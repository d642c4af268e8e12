"""Recorded outputs of real reward models give the figures that are published of them; published
sections give the published averages."""

import gzip
import json
from collections import defaultdict

import numpy as np
import pytest

from rewardsteer.evaluation.reward_benchmarks.measuring import figures_of
from rewardsteer.evaluation.reward_benchmarks.ppe import Ppe
from rewardsteer.evaluation.reward_benchmarks.processbench import SUBSETS as PROCESS_SUBSETS
from rewardsteer.evaluation.reward_benchmarks.processbench import ProcessBench
from rewardsteer.evaluation.reward_benchmarks.rewardbench import PRIOR, SECTIONS, RewardBench
from rewardsteer.evaluation.reward_benchmarks.rewardbench2 import SUBSETS, RewardBench2
from rewardsteer.evaluation.reward_benchmarks.rewardmath import RewardMath
from rewardsteer.evaluation.reward_benchmarks.rm_bench import RmBench
from rewardsteer.models.aggregation import aggregate_steps
from tests.evaluation.reward_benchmarks.test_formulas import SHARED, fixture, item, real

AGGREGATES = {
    "min": min, "max": max, "prod": np.prod, "mean": np.mean, "last": lambda own: own[-1],
}


def _rows(file):
    return json.loads(gzip.decompress((SHARED / "rewardmath" / f"{file}.gz").read_bytes()))


def _math_prm(scores):
    """RewardBench's strict accuracy in percent on pairs of scores."""
    items = [item(number, 2, "math-prm") for number in range(len(scores))]
    figures = figures_of(RewardBench(), items, [np.array(one) for one in scores])
    return round(100 * figures["math-prm"], 2)


@real
def test_rewardbench_math_pairs_of_thirteen_models():
    checked = 0
    expected = fixture("rewardmath_expected.json")["rewardbench_math_prm_files"]
    for file, figures in expected.items():
        rows = _rows(f"results_RewardBench_math/{file}")
        if "score" in rows[0]:
            assert _math_prm([row["score"] for row in rows]) == figures["acc"], file
            checked += 1
            continue
        pairs = defaultdict(dict)
        for row in rows:
            pairs[row["problem_id"]][row["solution_type"]] = row["output"]["step_scores"]
        assert len(pairs) == figures["pairs"] == 447
        for rule, own in AGGREGATES.items():
            scores = [[own(pair[side]) for side in ("chosen", "rejected")]
                      for pair in pairs.values()]
            assert _math_prm(scores) == figures[rule]["acc"], (file, rule)
            checked += 1
    assert checked == 9 + 4 * 5


@real
def test_rewardmath_of_judges_that_compare_pairs():
    """The right solution scores its wins and one, a beaten one 1, an unbeaten one a point more."""
    checked = 0
    for file, figures in fixture("rewardmath_expected.json")["files"].items():
        if "pairwise" not in file or "opus" in file:  # its file is not among the public ones
            continue
        rows = _rows(f"results_RewardMATH/{file}")
        scores = []
        for row in rows:
            won = np.array(row["score"]) == np.array(row["chosen_position"])
            scores.append(np.array([won.sum() + 1, *np.where(won, 1, won.sum() + 2)], dtype=float))
        found = figures_of(RewardMath(), [item(n, 10) for n in range(len(rows))], scores)
        assert round(100 * found["accuracy"], 2) == figures["pair"]["acc"], file
        assert round(100 * found["mean reciprocal rank"], 2) == figures["pair"]["mrr"], file
        checked += 1
    assert checked == 8


@pytest.mark.parametrize(("sections", "prior", "average"), [
    ((96.9, 76.8, 92.2, 97.3), 74.3, 89.0),  # ArmoRM
    ((94.7, 88.4, 92.7, 96.7), None, 93.1),  # Skywork-Reward-Llama-3.1-8B-v0.2
    ((98.0, 59.6, 60.6, 74.7), None, 73.3),  # Llama-3.1-Tulu-2-8B-UF-RM
])
def test_rewardbench_averages_of_published_sections(sections, prior, average):
    values = {
        name: value for value, names in zip(sections, SECTIONS.values(), strict=True)
        for name in names
    }
    if prior is not None:
        values |= dict.fromkeys(PRIOR, prior)
    found = RewardBench().figures({name: np.array([one, 1.0]) for name, one in values.items()})
    # Published sections are rounded: their mean may round the other way.
    assert found["average"] == pytest.approx(average, abs=0.1)
    for section, value in zip(SECTIONS, sections, strict=True):
        assert found[section] == pytest.approx(value)


@pytest.mark.parametrize(("subsets", "ties", "average"), [
    ((84.6, 66.3, 77.6, 96.7, 98.4), 81.2, 84.1),  # Skywork-Reward-V2-Llama-3.1-8B
    ((68.8, 45.0, 63.9, 91.8, 97.6), 76.5, 73.9),  # URM-LLaMa-3.1-8B
    ((74.3, 44.4, 61.7, 89.6, 90.7), 76.4, 72.8),  # Llama-3.1-8B-Instruct-RM-RB2
    ((58.2, 40.0, 71.6, 84.4, 79.4), 34.0, 61.3),  # Skywork-Reward-V2-Qwen3-0.6B
])
def test_rewardbench2_averages_of_published_subsets(subsets, ties, average):
    names = [name for name in SUBSETS if name != "Ties"]
    sums = {name: np.array([value, 1.0]) for name, value in zip(names, subsets, strict=True)}
    # All parts of Ties alike and no margin: the score is that part.
    sums["Ties"] = np.array([ties, 1, ties, 1, ties, ties, 0, 1])
    found = RewardBench2().figures(sums)
    assert found["Ties"] == pytest.approx(ties)
    assert found["average"] == pytest.approx(average, abs=0.1)


@pytest.mark.parametrize(("domains", "average"), [
    ({"chat": 71.8, "math": 59.2, "code": 56.6, "safety": 94.3}, 70.5),  # Skywork-Gemma-2-27B
    ({"chat": 70.7, "math": 64.3, "code": 57.4, "safety": 90.3}, 70.7),  # Nemotron-70B-Reward
    ({"chat": 75.4, "math": 84.5, "code": 69.3, "safety": 90.4}, 79.9),  # 3.3-Nemotron-Reward
])
def test_rm_bench_averages_of_published_domains(domains, average):
    found = RmBench().figures({
        name: np.array([value] * 9 + [1.0]) for name, value in domains.items()
    })
    assert found["average"] == pytest.approx(average, abs=0.05)


@pytest.mark.parametrize(("subsets", "mean"), [
    ((47.9, 29.5, 24.8, 23.8), 31.5),  # Math-Shepherd-PRM-7B
    ((70.8, 53.6, 22.9, 21.0), 42.1),  # Skywork-PRM-7B
    ((68.2, 62.6, 50.7, 44.3), 56.5),  # Qwen2.5-Math-7B-PRM800K
    ((82.4, 77.6, 67.5, 66.3), 73.5),  # Qwen2.5-Math-PRM-7B
])
def test_processbench_means_of_published_f1(subsets, mean):
    sums = {
        name: np.array([value, 1, value, 1])
        for name, value in zip(PROCESS_SUBSETS, subsets, strict=True)
    }
    found = ProcessBench().figures(sums)
    assert found["F1"] == pytest.approx(mean, abs=0.05 + 1e-9)


def test_ppe_mean_of_published_subsets():
    accuracies = {"MMLU-Pro": 67.5, "IFEval": 62.5, "GPQA": 57.5, "MATH": 70.3, "MBPP-Plus": 57.6}
    sums = {name: np.array([value, 1, *[0] * 14]) for name, value in accuracies.items()}
    # InternLM2-20B-Reward.
    assert Ppe().figures(sums)["accuracy"] == pytest.approx(63.0, abs=0.1)
    # Human preferences are published beside the mean, not in it.
    more = sums | {"human preference": np.array([0, 1, *[0] * 14])}
    assert Ppe().figures(more)["accuracy"] == Ppe().figures(sums)["accuracy"]


@real
def test_prm800k_score_of_a_solution_is_the_product_over_steps_that_are_not_wrong():
    file = SHARED / "prm800k/RM-scored-example.json.gz"
    row = json.loads(gzip.decompress(file.read_bytes()))
    steps = [1 - one["-1"] for one in row["rating_probs"]]
    assert aggregate_steps(steps, "product") == pytest.approx(row["prm_score"], rel=1e-6)
