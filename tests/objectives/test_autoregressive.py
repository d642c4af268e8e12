"""Bradley-Terry on log-probabilities against a dense log-softmax of every row read alone."""

import math
from dataclasses import replace

import pytest
import torch

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import ConfigError
from rewardsteer.models.heads.base import Head
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.objectives import OBJECTIVES
from rewardsteer.objectives.autoregressive import autoregressive, response_log_probabilities
from rewardsteer.objectives.combine import build_objective
from rewardsteer.tensors import RewardOutput, TokenStates
from rewardsteer.training.checks import check_head_gives
from rewardsteer.training.config import TermConfig
from tests.objectives.test_objectives import assert_same, rows, vocabulary_model


class Dense(Head):
    """A vocabulary head by definition: the states are all its rewards ``[…, V]``."""

    offset = 1

    def rewards_of(self, hidden, tokens):
        return hidden.gather(-1, tokens[..., None])[..., 0]

    def log_probabilities(self, hidden, tokens):
        return self.rewards_of(hidden, tokens) - hidden.logsumexp(-1)


def dense_output(logits, batch):
    """What a model whose rewards are ``logits [R, T, V]`` gives."""
    logs = Dense(None).response_log_probabilities(TokenStates.of(logits), batch)
    return RewardOutput(torch.zeros(len(logits)), log_probabilities=logs)


def plain_loss(model, data, beta):
    """The published loss, one unpadded row at a time and with every logit."""
    losses = []
    for row in data:
        totals = []
        for side in ("chosen_ids", "rejected_ids"):
            ids = row["prompt_ids"] + row[side]
            logs = model.carrier(torch.tensor([ids])).logits[0].log_softmax(-1)
            begin = len(row["prompt_ids"])
            totals.append(sum(logs[t - 1, ids[t]] for t in range(begin, len(ids))))
        gap = beta * (totals[0] - totals[1]) - row["margin"]
        losses.append(-torch.nn.functional.logsigmoid(gap))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("side", ["right", "left"])
def test_sums_the_log_probabilities_of_the_response_alone(side):
    data = rows(seed=7)
    batch = to_batch(PairCollator(2, side)(data))
    logits = torch.randn(*batch.input_ids.shape, 80, dtype=torch.float64) * 3
    sums = response_log_probabilities(dense_output(logits, batch))
    logs = logits.log_softmax(-1)
    for row in range(len(sums)):
        expected = sum(
            logs[row, t - 1, batch.input_ids[row, t]].item()
            for t in range(logits.shape[1]) if batch.response_mask[row, t]
        )
        assert sums[row].item() == pytest.approx(expected, rel=1e-10)
    shifted = logits + torch.randn(*logits.shape[:2], 1, dtype=torch.float64) * 9
    torch.testing.assert_close(
        response_log_probabilities(dense_output(shifted, batch)), sums, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("packing", [None, PackingCosts(0.0)])
def test_equals_dense_rows_in_loss_and_gradients(kind, side, packing):
    model, data = vocabulary_model(kind), rows(seed=8)
    batch = to_batch(PairCollator(2, side, packing=packing)(data))
    fast = autoregressive(model(batch, {"log_probabilities"}), batch, beta=0.3).loss
    assert_same(model, fast, plain_loss(model, data, 0.3))


def test_metrics_are_of_the_scaled_sums():
    model, data = vocabulary_model("gpt2"), rows(seed=9)
    batch = to_batch(PairCollator(2)(data))
    output = model(batch, {"log_probabilities"})
    chosen, rejected = (0.2 * response_log_probabilities(output)).chunk(2)
    metrics = autoregressive(output, batch, beta=0.2).metrics
    assert metrics["reward_gap"].item() == pytest.approx((chosen - rejected).mean().item())
    assert metrics["reward_chosen"].item() == pytest.approx(chosen.mean().item())
    assert metrics["accuracy"].item() == pytest.approx((chosen > rejected).float().mean().item())


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_first_token_without_a_state_before_it_adds_nothing(side):
    model, data = vocabulary_model("gpt2"), rows(seed=10)
    for row in data:
        row["prompt_ids"] = []
    batch = to_batch(PairCollator(2, side)(data))
    sums = response_log_probabilities(model(batch, {"log_probabilities"}))
    ids = data[0]["chosen_ids"]
    logs = model.carrier(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = sum(logs[t - 1, ids[t]].item() for t in range(1, len(ids)))
    assert sums[0].item() == pytest.approx(expected, rel=1e-9)


def test_margin_is_in_reward_units():
    data = rows(seed=11)
    batch = to_batch(PairCollator(2)(data))
    logits = torch.randn(*batch.input_ids.shape, 80, dtype=torch.float64)
    output = dense_output(logits, batch)
    gap = autoregressive(output, replace(batch, margin=torch.zeros(3))).metrics["reward_gap"]
    one = autoregressive(output, replace(batch, margin=torch.full((3,), 50.0))).loss
    assert one.item() == pytest.approx(50 - gap.item(), rel=1e-6)


@pytest.mark.parametrize("beta", [0, -1.0, True, "0.05", math.inf])
def test_beta_must_be_a_number_above_zero(beta):
    with pytest.raises(ConfigError, match="beta of 'autoregressive' must be a number above 0"):
        OBJECTIVES.get("autoregressive")(beta=beta)


def test_a_scalar_head_is_refused():
    objective = build_objective([TermConfig(name="autoregressive", options={"beta": 0.1})])
    check_head_gives(objective, HeadConfig(kind="vocabulary"))
    with pytest.raises(ConfigError, match="log_probabilities"):
        check_head_gives(objective, HeadConfig(kind="scalar"))
