"""The objective on labelled steps against a plain computation, one prefix at a time."""

import math

import pytest
import torch

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.counting import count_terms
from rewardsteer.objectives.process import build, process, row_accuracy
from tests.objectives.test_objectives import assert_same, rows, scalar_model

LABELS = [[1.0, 0.0, 0.25], [0.75], [0.0, 1.0], []]


def labelled(seed=5):
    """Rows of one response; the last step of each ends with it."""
    made = rows(seed, count=4)
    for row, labels in zip(made, LABELS, strict=True):
        length = max(len(row["chosen_ids"]), len(labels))
        row["chosen_ids"] = (row["chosen_ids"] * 3)[:length]
        row["rejected_ids"] = []
        row["step_labels"] = labels
        row["step_lengths"] = sorted(length - 2 * back for back in range(len(labels)))
        if labels and row["step_lengths"][0] < 1:
            row["step_lengths"] = list(range(1, len(labels) + 1))
    return made


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("soft", "threshold"), [(False, 0.5), (False, 0.0), (True, 0.5)])
def test_one_pass_equals_one_row_per_step(kind, side, soft, threshold):
    model, data = scalar_model(kind), labelled()
    batch = to_batch(PairCollator(2, side, paired=False, prefixes="step_lengths")(data))
    result = process(model(batch, {"prefix_rewards"}), batch, soft=soft, threshold=threshold)

    losses, right = [], []
    for row in data:
        for length, label in zip(row["step_lengths"], row["step_labels"], strict=True):
            ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"][:length]])
            hidden = model.backbone(ids).last_hidden_state[0, -1]
            probability = torch.sigmoid(model.base.score(hidden)[0])
            target = label if soft else float(label > threshold)
            losses.append(
                -target * probability.log() - (1 - target) * (1 - probability).log()
            )
            right.append(float((probability > 0.5) == (label > threshold)))
    assert float(result.metrics["step_accuracy"]) == pytest.approx(sum(right) / len(right))
    assert_same(model, result.loss, torch.stack(losses).mean())


def test_rows_without_steps_have_no_accuracy():
    model = scalar_model("llama")
    batch = to_batch(PairCollator(2, "right", paired=False, prefixes="step_lengths")(labelled()))
    output = model(batch, {"prefix_rewards"})
    found = row_accuracy(output, batch, 0.5)
    rewards = output.prefix_rewards.split([len(labels) for labels in LABELS])
    for value, own, labels in zip(found.tolist(), rewards, LABELS, strict=True):
        right = [(reward > 0) == (label > 0.5) for reward, label in zip(own, labels, strict=True)]
        if labels:
            assert value == pytest.approx(sum(map(bool, right)) / len(right))
        else:
            assert math.isnan(value)


def test_a_batch_without_steps_has_a_loss_of_zero():
    model = scalar_model("llama")
    batch = to_batch(PairCollator(2, "right", paired=False, prefixes="step_lengths")(
        labelled()[-1:]
    ))
    result = process(model(batch, {"prefix_rewards"}), batch)
    assert result.loss.item() == 0
    assert result.metrics == {}


def test_each_step_counts_the_same_in_accumulated_batches():
    objective = build()
    collate = PairCollator(2, "right", paired=False, prefixes="step_lengths")
    counts = [count_terms(objective, to_batch(collate([row]))) for row in labelled()]
    assert torch.cat(counts).tolist() == [3, 1, 2, 0]


def test_what_it_needs_and_what_its_rewards_mean():
    objective = build()
    assert objective.rows == "chosen"
    assert objective.prefixes == "step_lengths"
    assert objective.reading == "step_logit"


@pytest.mark.parametrize("options", [
    {"soft": 1}, {"threshold": 1.0}, {"threshold": -0.1}, {"threshold": True},
    {"threshold": float("nan")}, {"threshold": "half"},
])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.* must be"):
        build(**options)
