"""Agreement with ratings, ranks and labels, by hand and from the command line."""

import json

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from rewardsteer import RewardModel, evaluate
from rewardsteer.cli.main import app
from rewardsteer.data.responses import Responses
from rewardsteer.errors import DataError
from rewardsteer.evaluation.responses import evaluate_responses
from rewardsteer.models.text_scorer import TextScorer
from tests.api.conftest import make_folders


class Table(TextScorer):
    """Rewards by text; one that has none cannot be scored."""

    def __init__(self, rewards):
        self.rewards = rewards

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        for number, one in enumerate(completions, start=1):
            if one not in self.rewards:
                raise DataError(f"Row {number} is too long.")
        return np.array([self.rewards[one] for one in completions])


def rows(name, values):
    """Two prompts with three responses each."""
    texts = iter("abcdef")
    return [
        Responses(id=str(number), prompt=f"{number}?", responses=[next(texts) for _ in range(3)],
                  numbers={name: values[3 * number : 3 * number + 3]})
        for number in range(2)
    ]


REWARDS = dict(zip("abcdef", [0.5, 1.5, 1.0, -1.0, 0.0, 2.0], strict=True))


def test_ratings():
    ratings = [1.0, 3.0, 2.0, 1.0, 4.0, 0.0]
    found = evaluate_responses(Table(REWARDS), rows("rating", ratings))["rating"]
    own = list(REWARDS.values())
    assert found["pearson"] == pytest.approx(stats.pearsonr(own, ratings).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(own, ratings).statistic)
    # The first prompt's three pairs are in order; of the second's, e above d alone.
    assert (found["pair_accuracy"], found["pairs"]) == (pytest.approx(4 / 6), 6)
    assert (found["count"], found["prompts"]) == (6, 2)


def test_labels_and_unknown_numbers():
    labels = [1.0, 0.0, None, 1.0, 0.0, 1.0]
    found = evaluate_responses(Table(REWARDS), rows("label", labels))["label"]
    # Good 0.5, -1, 2 against bad 1.5, 0.
    assert found["auroc"] == pytest.approx(3 / 6)
    assert found["count"] == 5
    assert "spearman" not in found


def test_no_rows():
    with pytest.raises(DataError, match="got none"):
        evaluate_responses(Table({}), [])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("responses")
    make_folders(root)
    (root / "ratings.jsonl").write_text("".join(
        json.dumps({"prompt": f"{n // 2}+1=", "response": str(n), "rating": n % 5}) + "\n"
        for n in range(12)
    ))
    (root / "pairs.jsonl").write_text(
        json.dumps({"prompt": "1+1=", "chosen": "2", "rejected": "3"}) + "\n"
    )
    return root


def test_command_and_python_agree(place, tmp_path):
    given = ["evaluate", "responses", "--reward-model", str(place / "bt"), "--device", "cpu"]
    result = CliRunner().invoke(
        app, [*given, "--input", str(place / "ratings.jsonl"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["numbers"]["rating"]
    model = RewardModel.from_pretrained(place / "bt", device="cpu")
    table = evaluate(model, place / "ratings.jsonl", source="ratings")
    assert table["rating"]["spearman"] == pytest.approx(found["spearman"])
    refused = CliRunner().invoke(
        app, [*given, "--input", str(place / "pairs.jsonl"), "--source", "pairs",
              "--out", str(tmp_path / "other")]
    )
    assert refused.exit_code != 0
    assert "evaluate preference" in refused.output + str(refused.exception)


def test_responses_that_cannot_be_scored_are_left_out(caplog):
    ratings = [1.0, 3.0, 2.0, 1.0, 4.0, 0.0]
    known = {text: reward for text, reward in REWARDS.items() if text not in "bf"}
    found = evaluate_responses(Table(known), rows("rating", ratings))["rating"]
    assert found["count"] == 4
    kept = [ratings[at] for at in (0, 2, 3, 4)]
    assert found["pearson"] == pytest.approx(stats.pearsonr([*known.values()], kept).statistic)
    assert "2 of 6 responses could not be scored" in caplog.text
    assert "This response is too long." in caplog.text
    with pytest.raises(DataError, match="is too long"):
        evaluate_responses(Table({}), rows("rating", ratings))
