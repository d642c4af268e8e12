"""Gold against proxy over the weight of guidance: table, sentence, plots."""

import copy

import pytest

from rewardsteer.reports.overoptimization import (
    WEIGHT_COLUMNS,
    weight_blocks,
    weight_rows,
    weight_verdicts,
)
from tests.reports.test_plots import circles


def figures(gold, proxy, kl):
    return {
        "reward": 1 + proxy, "reward_gain": proxy, "reward_gain_low": proxy - 0.1,
        "reward_gain_high": proxy + 0.1, "accuracy": 0.5 + gold, "accuracy_low": 0.4 + gold,
        "accuracy_high": 0.6 + gold, "accuracy_gain": gold, "kl": kl, "kl_low": kl / 2,
        "kl_high": 2 * kl,
    }


@pytest.fixture
def summary():
    return copy.deepcopy({
        "methods": {
            "none": figures(0, 0, 0), "farma w=2": figures(-0.1, 2, 4),
            "farma w=0.5": figures(0.2, 1, 1),
        },
        "baseline": "none", "sweeps": {"farma": ["farma w=2", "farma w=0.5"]},
        "weights": {"farma w=2": 2.0, "farma w=0.5": 0.5},
        "peaks": {"farma": {
            "weight": 0.5, "largest": 2.0, "prompts": 30, "change": -0.3, "change_low": -0.4,
            "change_high": -0.2,
        }},
    })


def test_the_table_has_kl_beside_gold_and_proxy_by_rising_weight(summary):
    assert len(WEIGHT_COLUMNS) == len(weight_rows(summary)[0])
    assert weight_rows(summary) == [
        ["farma w=0.5", "0.5", "0.700 (0.600, 0.800)", "+0.200", "+1.000 (+0.900, +1.100)",
         "1.000 (0.500, 2.000)"],
        ["farma w=2", "2", "0.400 (0.300, 0.500)", "-0.100", "+2.000 (+1.900, +2.100)",
         "4.000 (2.000, 8.000)"],
    ]
    for one in summary["methods"].values():
        del one["kl"]
        one["second_reward"] = one["second_reward_gain"] = 7.0
    assert [row[2:4] + row[-1:] for row in weight_rows(summary)] == [["7.000", "+7.000", "–"]] * 2


def test_the_sentence_is_of_the_tested_peak(summary):
    assert weight_verdicts(summary) == [
        "farma: On half of the prompts gold is highest at weight = 0.5. On the other 30, "
        "weight = 2 differs from it by -0.300 (-0.400, -0.200): the proxy is over-optimised."
    ]
    summary["peaks"]["farma"]["change_high"] = 0.1
    assert weight_verdicts(summary)[0].endswith("no significant fall.")
    summary["peaks"]["farma"]["weight"] = 2.0
    assert "highest at the largest weight, 2" in weight_verdicts(summary)[0]
    summary["peaks"] = {}
    assert weight_verdicts(summary) == [
        "farma: Half of the prompts are fewer than ten, too few to test for over-optimisation."
    ]
    del summary["peaks"]
    assert weight_verdicts(summary) == []


def test_plots_are_against_the_weight_and_where_it_was_measured_the_divergence(summary):
    drawn = weight_blocks(summary)[0].figures
    assert [one.alt for one in drawn] == [
        "Gold and proxy by weight of guidance: farma",
        "Gold and proxy by KL divergence from the policy: farma",
    ]
    told = [text for _, _, text in circles(drawn[1].svg)]
    assert told[-1] == (
        "accuracy (gold)\ngain over the baseline: −0.1\n"
        "KL divergence from the policy, nats per response: 4"
    )
    del summary["methods"]["farma w=2"]["kl"]
    assert len(weight_blocks(summary)[0].figures) == 1


def test_the_baseline_may_be_one_of_the_weights(summary):
    for name in ("reward_gain", "reward_gain_low", "reward_gain_high", "accuracy_gain"):
        del summary["methods"]["farma w=0.5"][name]
    assert weight_rows(summary)[0][3:5] == ["–", "–"]
    assert len(circles(weight_blocks(summary)[0].figures[0].svg)) == 4


def test_nothing_without_gold_or_several_weights(summary):
    assert weight_blocks(summary | {"weights": {"farma w=2": 2.0}}) == []
    assert weight_blocks(summary | {"sweeps": {}}) == []
    for one in summary["methods"].values():
        del one["accuracy"]
    assert weight_blocks(summary) == []
