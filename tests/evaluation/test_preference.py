"""Preference figures worked out by hand, and prepared folders against files of pairs."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources import SOURCES
from rewardsteer.errors import DataError, NonFiniteError
from rewardsteer.evaluation.calibration import (
    brier,
    expected_calibration_error,
    pair_calibration,
    reliability_bins,
)
from rewardsteer.evaluation.preference import evaluate_comparisons, evaluate_preference
from rewardsteer.evaluation.statistics import over, share
from rewardsteer.models.finite import require_finite
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.limits import check_length
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Comparison
from tests.fakes import character_tokenizer, save_tiny

# Text → reward; one token a word. Margins 2, −1, 0 and 7; longer by 2, −1, 0 and 1 tokens.
REWARDS = {
    "a b c": 2.0, "d": 0.0, "e": 0.0, "f g": 1.0, "h i": 1.5, "j k": 1.5, "l m n": 3.0, "o p": -4.0,
}
PAIRS = [
    ("x", "a b c", "d"), ("x", "e", "f g"), ("y", "h i", "j k"), ("", "l m n", "o p"),
]


class TableScorer:
    """Looks rewards up by text and refuses what it cannot read, like the real one."""

    reads_tokens = True

    def __init__(self, rewards=REWARDS, position_limit=None):
        self.rewards, self.position_limit, self.batch_sizes = rewards, position_limit, []

    def encode(self, prompts, completions, tools=None):
        return [text.split() for text in map(as_text, prompts)], [c.split() for c in completions]

    def score_ids(self, prompt_ids, response_ids, *, batch_size=16, numbers=None):
        self.batch_sizes.append(batch_size)
        for prompt, response in zip(prompt_ids, response_ids, strict=True):
            assert self.position_limit is None or len(prompt + response) <= self.position_limit
        return np.array([self.rewards[" ".join(response)] for response in response_ids])


class ShortTexts(TextScorer):
    """Looks rewards up and scores no text of three words."""

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        for number, text in enumerate(completions, start=1):
            check_length(number, len(text.split()), 2)
        return np.array([REWARDS[text] for text in completions])


def as_text(prompt):
    return prompt if isinstance(prompt, str) else " ".join(turn.content for turn in prompt)


def comparisons(pairs=PAIRS, prompt=None):
    return [
        Comparison(
            id=str(i), prompt=prompt or f"say it{i}", chosen=chosen, rejected=rejected,
            subset=subset,
        )
        for i, (subset, chosen, rejected) in enumerate(pairs)
    ]


def accuracy(wins):
    return {"count": len(wins), "prompts": len(wins), "accuracy": np.mean(wins),
            "intervals": over(len(wins), "prompt")}


def figures(wins, margin, median):
    return accuracy(wins) | {"margin": margin, "margin_median": median}


def test_figures_by_hand():
    scorer = TableScorer()
    found = evaluate_comparisons(scorer, comparisons(), batch_size=3)
    assert set(found) == {
        "all", "subsets", "too_long", "calibration", "length_bias", "histogram", "reward_by_length",
        "controls", "notes",
    }
    assert sum(found["histogram"]["counts"]["chosen"]) == found["all"]["count"]
    assert found["all"] == figures([1, 0, 0.5, 1], 2.0, 1.0)
    assert list(found["subsets"]) == ["none", "x", "y"]
    assert found["subsets"]["none"] == figures([1], 7.0, 7.0)
    assert found["subsets"]["x"] == figures([1, 0], 0.5, 0.5)
    assert found["subsets"]["y"] == figures([0.5], 0.0, 0.0)
    assert found["too_long"] == 0
    assert scorer.batch_sizes == [3, 3]


def test_length_bias_by_hand():
    found = evaluate_comparisons(TableScorer(), comparisons())["length_bias"]
    # Ranks of the margins 3 1 2 4, of the lengths 4 1 2 3: 1 − 6·(1 + 1)/(4·15).
    assert found["spearman"] == pytest.approx(0.8)
    expected = {"longer": [1, 1], "shorter": [0], "equal": [0.5]}
    for name, wins in expected.items():
        assert found[name] == accuracy(wins), name


def test_pairs_of_one_prompt_are_alike():
    found = evaluate_comparisons(TableScorer(), comparisons(prompt="say it"))["all"]
    assert found["intervals"] == "no intervals: 1 prompt, an interval takes at least 10"
    several = [one for number in range(12) for one in comparisons(prompt=f"say {number}")]
    found = evaluate_comparisons(TableScorer(), several)["all"]
    # Every prompt has the share 2.5 of 4: twelve rows of that share, not 48 of their own.
    expected = share([2.5 / 4] * 12)
    assert found["intervals"] == "95 % intervals over 12 prompts"
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(expected[1:])


def test_calibration_by_hand():
    found = evaluate_comparisons(TableScorer(), comparisons())["calibration"]
    right = [1 / (1 + math.exp(-margin)) for margin in (2, -1, 0, 7)]
    # Neither depends on which response of a pair comes first.
    assert found["brier"] == pytest.approx(sum((1 - p) ** 2 for p in right) / 4)
    expected = -sum(math.log(p) for p in right) / 4
    assert found["negative_log_likelihood"] == pytest.approx(expected)
    assert len(found["bins"]) == 10
    assert sum(bin["count"] for bin in found["bins"]) == 4


def test_rows_too_long_are_counted_and_in_no_figure():
    # "say it" and three words are five tokens: the limit of four keeps the two middle pairs.
    found = evaluate_comparisons(TableScorer(position_limit=4), comparisons())
    assert found["too_long"] == 2
    assert found["all"] == figures([0, 0.5], -0.5, -0.5)
    assert list(found["subsets"]) == ["x", "y"]
    assert found["length_bias"]["longer"] == {"count": 0}
    assert evaluate_comparisons(TableScorer(position_limit=5), comparisons())["too_long"] == 0
    # Either side can be the one that does not fit.
    swapped = [(subset, rejected, chosen) for subset, chosen, rejected in PAIRS]
    found = evaluate_comparisons(TableScorer(position_limit=4), comparisons(swapped))
    assert (found["too_long"], found["all"]["count"]) == (2, 2)
    with pytest.raises(DataError, match="All 4 comparisons are longer than the 2 tokens"):
        evaluate_comparisons(TableScorer(position_limit=2), comparisons())
    with pytest.raises(DataError, match="got none"):
        evaluate_comparisons(TableScorer(), [])


def test_pairs_that_a_model_of_texts_cannot_score_are_in_no_figure():
    found = evaluate_comparisons(ShortTexts(), comparisons())
    assert found["all"] == figures([0, 0.5], -0.5, -0.5)
    assert found["notes"][-1].startswith(
        "2 of 4 pairs could not be scored and are left out; one reason: This row has 3 tokens"
    )
    with pytest.raises(DataError, match="Row 1 has 3 tokens"):
        evaluate_comparisons(ShortTexts(), comparisons([("x", "a b c", "l m n")]))


def test_a_reward_that_is_no_number_names_its_pair():
    class Scorer(TableScorer):
        def score_ids(self, prompt_ids, response_ids, *, batch_size=16, numbers=None):
            rewards = super().score_ids(prompt_ids, response_ids)
            require_finite(np.where(rewards == REWARDS["h i"], np.nan, rewards), numbers)
            return rewards

    with pytest.raises(NonFiniteError, match="row 3 is nan"):
        evaluate_comparisons(Scorer(), comparisons())


@pytest.mark.parametrize("pairs", [
    PAIRS[:1], PAIRS[2:3], PAIRS[2:3] * 3, PAIRS,
    # The same margin at different lengths, and the same lengths at different margins.
    [("x", "a b c", "d"), ("x", "l m n", "f g")], [("x", "a b c", "d"), ("x", "l m n", "e")],
])
def test_results_hold_no_nan(pairs):
    found = evaluate_comparisons(TableScorer(), comparisons(pairs))
    json.dumps(found, allow_nan=False)
    assert ("spearman" in found["length_bias"]) == (pairs is PAIRS)


def test_reward_bench_layout(tmp_path):
    turns = [{"role": "system", "content": "say"}, {"role": "user", "content": "it"}]
    rows = [
        {"prompt": "say it", "chosen": "a b c", "rejected": "d", "subset": "chat", "id": 7},
        {"prompt": turns, "chosen": "e", "rejected": "f g", "subset": "safety", "id": 8},
        {
            "prompt": turns, "subset": "chat", "id": 9,
            "chosen": [{"role": "assistant", "content": "h i"}],
            "rejected": [{"role": "assistant", "content": "o p"}],
        },
    ]
    path = tmp_path / "filtered.json"
    path.write_text(json.dumps(rows))
    pairs = list(SOURCES.get("pairs")("train", path=str(path)))
    assert [pair.id for pair in pairs] == ["7", "8", "9"]
    assert [as_text(pair.prompt) for pair in pairs] == ["say it"] * 3
    found = evaluate_comparisons(TableScorer(), pairs)
    # A text and a conversation that read alike here are the same prompt.
    assert (found["all"]["count"], found["all"]["prompts"]) == (3, 1)
    assert found["all"]["accuracy"] == pytest.approx(2 / 3)
    assert found["all"]["margin"] == pytest.approx(6.5 / 3)
    assert found["subsets"]["chat"]["accuracy"] == 1
    assert found["subsets"]["safety"]["accuracy"] == 0


def test_prepared_folders_and_files_of_pairs_agree(tmp_path):
    rows = [
        {
            "prompt": f"Sum {i}", "chosen": f"it is {i * i}", "rejected": "no" * i,
            "subset": "ab"[i % 2], "chosen_model": "large", "rejected_model": "small" * (i > 2),
        }
        for i in range(1, 9)
    ]
    # The tiny model reads 512 tokens; one token a character.
    rows[2]["rejected"] = "long " * 200
    (tmp_path / "pairs").mkdir()
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "pairs" / f"{split}.jsonl").write_text(text)
    source = {"name": "pairs", "path": str(tmp_path / "pairs")}
    config = DataConfig(source=source, max_length=2000, drop_overlap=False)
    torch.manual_seed(1)
    model = RewardModel.from_base(save_tiny(tmp_path / "m"), HeadConfig(kind="scalar")).eval()
    scorer = Scorer(model, character_tokenizer(), config.template)
    prepare(config, scorer.tokenizer, tmp_path / "data")
    prepared = evaluate_preference(scorer, tmp_path / "data")
    pairs = list(SOURCES.get("pairs")("test", path=str(tmp_path / "pairs")))
    found = evaluate_comparisons(scorer, pairs)
    assert prepared["too_long"] == found["too_long"] == 1
    assert prepared["all"]["count"] == 7
    right = 0
    for row in rows[:2] + rows[3:]:
        chosen, rejected = scorer.score([row["prompt"]] * 2, [row["chosen"], row["rejected"]])
        right += chosen > rejected
    assert found["all"]["accuracy"] == pytest.approx(right / 7)
    for name in ("a", "b"):
        assert prepared["subsets"][name] == pytest.approx(found["subsets"][name], abs=1e-5)
    for name in ("longer", "shorter", "equal"):
        assert prepared["length_bias"][name] == pytest.approx(found["length_bias"][name])
    for name in ("brier", "negative_log_likelihood"):
        expected = pytest.approx(found["calibration"][name], abs=1e-5)
        assert prepared["calibration"][name] == expected
    # Who wrote a response is known of prepared rows too.
    assert found["controls"]["source"]["count"] == 5
    for name in ("length", "source", "by_prompt"):
        assert prepared["controls"][name] == found["controls"][name]


class TestCalibration:
    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    def test_against_a_plain_loop(self, drawn):
        probabilities, labels = [p for p, _ in drawn], [int(label) for _, label in drawn]
        error = 0.0
        for number in range(10):
            inside = [
                (p, label) for p, label in zip(probabilities, labels, strict=True)
                if number <= p * 10 < number + 1 or (number == 9 and p == 1)
            ]
            bin = reliability_bins(probabilities, labels)[number]
            assert bin["count"] == len(inside)
            if inside:
                mean = sum(p for p, _ in inside) / len(inside)
                share = sum(label for _, label in inside) / len(inside)
                assert (bin["mean_probability"], bin["share"]) == pytest.approx((mean, share))
                error += len(inside) / len(drawn) * abs(mean - share)
        assert expected_calibration_error(probabilities, labels) == pytest.approx(error)

    def test_against_scikit_learn(self):
        rng = np.random.default_rng(3)
        probabilities = rng.random(300)
        labels = (rng.random(300) < probabilities**2).astype(int)
        shares, means = calibration_curve(labels, probabilities, n_bins=5)
        bins = reliability_bins(probabilities, labels, bins=5)
        assert [bin["share"] for bin in bins] == pytest.approx(list(shares))
        assert [bin["mean_probability"] for bin in bins] == pytest.approx(list(means))
        assert [(bin["low"], bin["high"]) for bin in bins] == [
            (0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0),
        ]
        expected = brier_score_loss(labels, probabilities)
        assert brier(probabilities, labels) == pytest.approx(expected)

    def test_perfect_calibration_has_no_error(self):
        probabilities, labels = [0.25] * 4 + [0.5] * 2 + [1.0], [1, 0, 0, 0, 1, 0, 1]
        assert expected_calibration_error(probabilities, labels) == 0.0
        assert expected_calibration_error(probabilities, labels[::-1]) > 0.1

    def test_borders_and_empty_bins(self):
        bins = reliability_bins([0.0, 0.5, 1.0], [0, 1, 1], bins=2)
        assert bins == [
            {"low": 0.0, "high": 0.5, "count": 1, "mean_probability": 0.0, "share": 0.0},
            {"low": 0.5, "high": 1.0, "count": 2, "mean_probability": 0.75, "share": 1.0},
        ]
        assert reliability_bins([0.9], [1], bins=2)[0] == {"low": 0.0, "high": 0.5, "count": 0}

    def test_pairs_that_are_always_right_at_three_quarters(self):
        # Whichever comes first, probability 3/4 meets label 1 and 1/4 meets label 0.
        right = pair_calibration([math.log(3)] * 40)
        assert right["expected_calibration_error"] == pytest.approx(0.25)
        assert right["brier"] == pytest.approx(1 / 16)
        assert right["negative_log_likelihood"] == pytest.approx(math.log(4 / 3))
        wrong = pair_calibration([-math.log(3)] * 40)
        assert wrong["expected_calibration_error"] == pytest.approx(0.75)

    def test_orientation_is_drawn_once_and_for_all(self):
        found = pair_calibration([math.log(3)] * 400)
        low, high = found["bins"][2], found["bins"][7]
        assert (low["share"], high["share"]) == (0.0, 1.0)
        assert low["count"] + high["count"] == 400
        assert 150 < low["count"] < 250
        assert found == pair_calibration([math.log(3)] * 400)
        assert found != pair_calibration([math.log(3)] * 400, seed=1)

    def test_large_differences_stay_finite(self):
        found = pair_calibration([-2000.0])
        assert found["negative_log_likelihood"] == 2000.0
        assert found["brier"] == found["expected_calibration_error"] == 1.0

    def test_bad_input(self):
        with pytest.raises(DataError, match="2 probabilities and 1 labels"):
            brier([0.1, 0.2], [1])
        for wrong in (1.5, -0.1, float("nan")):
            with pytest.raises(DataError, match=f"between 0 and 1, got {wrong}"):
                expected_calibration_error([0.5, wrong], [1, 0])
        assert math.isnan(brier([], []))
        assert math.isnan(expected_calibration_error([], []))
