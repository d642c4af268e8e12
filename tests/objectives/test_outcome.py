"""P(correct | prefix): the objective against a plain computation, and the guide's exact law."""

import itertools
import math

import numpy as np
import pytest
import torch

from rewardsteer.data.collate import to_batch
from rewardsteer.data.collate_responses import ResponseCollator
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.q_sharp import QSharp
from rewardsteer.decoding.guides.weights import RowWeights, Weight
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.counting import count_terms
from rewardsteer.objectives.outcome import build, columns, figures, outcome
from tests.fakes import tiny_causal_lm
from tests.objectives.test_numbers import NAN, rows_of
from tests.objectives.test_objectives import assert_same, scalar_model

GROUPS = [[3.0, 1.0], [NAN, 2.0, 0.0], [1.0]]


def vocabulary_model():
    torch.manual_seed(0)
    model = RewardModel(tiny_causal_lm("llama"), HeadConfig(kind="vocabulary"))
    return model.double().eval()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
def test_one_pass_equals_one_row_per_prefix(head, side):
    model = scalar_model("llama") if head == "scalar" else vocabulary_model()
    data = rows_of(GROUPS)
    batch = to_batch(ResponseCollator(2, side, prefixes="all")(data))
    result = outcome(model(batch, {"prefix_rewards"}), batch)
    losses, squares = [], []
    for row in data:
        for response, label in zip(row["response_ids"], row["numbers"]["label"], strict=True):
            for length in range(1, len(response) + 1 if label is not None else 1):
                ids = torch.tensor([row["prompt_ids"] + response[:length]])
                if head == "scalar":
                    reward = model.base.score(model.backbone(ids).last_hidden_state[0, -1])[0]
                else:
                    reward = model.base(ids[:, :-1]).logits[0, -1, ids[0, -1]]
                chance = torch.sigmoid(reward)
                losses.append(-label * chance.log() - (1 - label) * (1 - chance).log())
                squares.append(float(chance.detach() - label) ** 2)
    assert float(result.metrics["brier"]) == pytest.approx(np.mean(squares))
    assert_same(model, result.loss, torch.stack(losses).mean())


def test_accumulated_batches_weigh_every_token_alike():
    model, data = scalar_model("llama"), rows_of(GROUPS)
    collate = ResponseCollator(2, prefixes="all")
    whole = to_batch(collate(data))
    objective = build()
    wanted = objective(model(whole, objective.needs), whole).loss
    parts = [to_batch(collate([row])) for row in data]
    losses = [float(objective(model(part, objective.needs), part).loss.detach()) for part in parts]
    tokens = [
        sum(len(ids) for ids, label in zip(
            row["response_ids"], row["numbers"]["label"], strict=True) if label is not None)
        for row in data
    ]
    # By these counts an update of several batches weighs them.
    assert [count_terms(objective, part).tolist() for part in parts] == [[one] for one in tokens]
    assert np.average(losses, weights=tokens) == pytest.approx(float(wanted))


def test_figures_of_prefixes():
    model = scalar_model("llama")
    batch = to_batch(ResponseCollator(2, prefixes="all")(rows_of(GROUPS)))
    kept = columns(model(batch, {"prefix_rewards"}), batch, "label").detach().double().numpy()
    assert len(kept) == int(batch.prefix_mask.sum())
    found = figures(kept)
    known = kept[~np.isnan(kept[:, 1])]
    right, wrong = known[known[:, 1] == 1, 0], known[known[:, 1] == 0, 0]
    wins = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    assert found["auroc"] == pytest.approx(np.mean(wins))
    assert found["brier"] == pytest.approx(
        np.mean((1 / (1 + np.exp(-known[:, 0])) - known[:, 1]) ** 2))
    assert figures(kept[:0]) == {}


@pytest.fixture
def toy():
    """Three tokens, three steps: a policy's logits after each prefix, and which responses are
    correct."""
    draw = np.random.default_rng(5)
    logits = {
        prefix: torch.tensor(draw.normal(size=3))
        for length in range(3) for prefix in itertools.product(range(3), repeat=length)
    }
    correct = {one: float(draw.random() < 0.4) for one in itertools.product(range(3), repeat=3)}
    return logits, correct


def guide(weight, **options):
    config = DecodingConfig(method="q_sharp", weight=weight, **options)
    made = QSharp.__new__(QSharp)
    made.name, made.weight = "q_sharp", Weight(config)
    return made


@pytest.mark.parametrize("weight", [-2.0, 0.0, 0.7, 3.0, 200.0])
def test_with_exact_odds_responses_follow_the_optimal_law_at_every_weight(toy, weight):
    logits, correct = toy

    def chance(prefix):
        """P(correct | prefix) under the policy."""
        if len(prefix) == 3:
            return correct[prefix]
        law = logits[prefix].softmax(-1)
        return sum(float(law[v]) * chance((*prefix, v)) for v in range(3))

    own, method = {}, guide(weight)
    for response in correct:
        log_p = 0.0
        for step in range(3):
            prefix = response[:step]
            p = torch.tensor([chance((*prefix, v)) for v in range(3)], dtype=torch.float64)
            rewards = torch.logit(p)[None]
            scores = method(logits[prefix][None], rewards, method.weight, [step])
            log_p += float(scores.log_softmax(-1)[0, response[step]])
        own[response] = math.exp(log_p)
    plain = {
        response: math.exp(sum(
            float(logits[response[:step]].log_softmax(-1)[response[step]]) for step in range(3)
        ))
        for response in correct
    }
    tilted = {one: p * math.exp(weight * correct[one]) for one, p in plain.items()}
    total = sum(tilted.values())
    for response, p in tilted.items():
        assert own[response] == pytest.approx(p / total, abs=1e-12)


def test_rows_have_their_own_weights_and_unknown_tokens_the_least():
    rows, rewards = RowWeights(), torch.tensor([[0.5, -1.0, 2.0], [0.5, -1.0, 2.0]])
    rows.rows = [guide(1.0).weight, guide(4.0).weight]
    logits, known = torch.randn(2, 3), torch.tensor([[True, True, False]] * 2)
    found = guide(1.0)(logits, rewards, rows, [0, 0], known)
    for row, weight in enumerate((1.0, 4.0)):
        p = torch.sigmoid(rewards[row])
        pull = torch.log(1 + p * (math.exp(weight) - 1))
        pull[2] = pull[1]
        torch.testing.assert_close(found[row], logits[row] + pull)
