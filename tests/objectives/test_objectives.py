"""Every objective against a plain computation written from its equation, loss and gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import ConfigError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import open_vocabulary
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.bradley_terry import bradley_terry
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.max_constraint import max_constraint
from rewardsteer.objectives.partial import partial
from rewardsteer.tensors import PairBatch
from rewardsteer.training.checks import check_head_gives
from rewardsteer.training.config import TermConfig
from tests.fakes import fixed_output, tiny_causal_lm

CONSTRAINT = {"prefix_rewards", "best_next_token"}


def rows(seed, count=3, longest=14):
    """Rows of the partial set with random lengths and drawn prefixes."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(3, 70, (length,), generator=generator).tolist()

    made = []
    for number in range(count):
        chosen, rejected = ids(1, longest), ids(1, longest)
        shared = min(len(chosen), len(rejected))
        made.append({
            "id": str(number), "prompt_ids": ids(1, 6), "chosen_ids": chosen,
            "rejected_ids": rejected, "margin": 0.25 * number,
            # Every second prefix of the chosen response, the last (closing) one left out.
            "chosen_lengths": list(range(1, len(chosen), 2)),
            "pair_lengths": list(range(1, shared + 1)),
        })
    return made


def vocabulary_model(kind):
    base = tiny_causal_lm(kind, dtype=torch.float64)
    config = HeadConfig(kind="vocabulary")
    return RewardModel(open_vocabulary(base, config), config).double()


def scalar_model(kind):
    from transformers import AutoModelForSequenceClassification

    config = tiny_causal_lm(kind).config
    config.num_labels = 1
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(config).double().eval()
    return RewardModel(base, HeadConfig())


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone() for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same(model, fast, plain):
    # Llama's norms compute in float32 whatever the weights are, so its gradients agree less.
    exact = 1e-6 if model.config.model_type == "llama" else 1e-8
    torch.testing.assert_close(fast, plain, atol=exact, rtol=exact)
    ours, theirs = gradients(model, fast), gradients(model, plain)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=exact, rtol=exact, msg=name)


def one_row(ids):
    """A batch of one unpadded row, for the plain computations."""
    tokens = torch.tensor([ids])
    mask = torch.ones_like(tokens)
    return PairBatch(tokens, mask, mask.bool(), mask.bool(), torch.zeros(1), paired=False)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("detach", [False, True])
def test_constraint_in_one_pass_equals_one_row_per_prefix(kind, side, detach):
    model, data = vocabulary_model(kind), rows(seed=3)
    collate = PairCollator(2, side, paired=False, prefixes="chosen_lengths")
    batch = to_batch(collate(data))
    fast = max_constraint(model(batch, CONSTRAINT), batch, detach_target=detach).loss

    errors = []
    for row in data:
        for length in row["chosen_lengths"]:
            prefix = row["prompt_ids"] + row["chosen_ids"][:length]
            # Two calls, as a per-prefix training row has it: Q(y₁..i-1)[y_i] and max Q(y₁..i).
            before = model.carrier(torch.tensor([prefix[:-1]])).logits[0, -1, prefix[-1]]
            best = model.carrier(torch.tensor([prefix])).logits[0, -1].max()
            errors.append((before - (best.detach() if detach else best)) ** 2)
    assert_same(model, fast, torch.stack(errors).mean())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
def test_partial_in_one_pass_equals_one_pair_per_prefix(kind, side):
    model, data = scalar_model(kind), rows(seed=4)
    collate = PairCollator(2, side, paired=True, prefixes="pair_lengths")
    batch = to_batch(collate(data))
    fast = partial(model(batch, {"prefix_rewards"}), batch, center_coefficient=0.1).loss

    losses = []
    for row in data:
        for length in row["pair_lengths"]:
            chosen, rejected = (
                model(one_row(row["prompt_ids"] + row[side_ids][:length])).sequence_rewards[0]
                for side_ids in ("chosen_ids", "rejected_ids")
            )
            term = -torch.nn.functional.logsigmoid(chosen - rejected - row["margin"])
            losses.append(term + 0.1 * (chosen + rejected) ** 2)
    assert_same(model, fast, torch.stack(losses).mean())


@pytest.mark.parametrize("make", [scalar_model, vocabulary_model])
@pytest.mark.parametrize("side", ["right", "left"])
def test_bradley_terry_equals_unpadded_rows(make, side):
    model, data = make("llama"), rows(seed=5)
    batch = to_batch(PairCollator(2, side)(data))
    result = bradley_terry(model(batch), batch, center_coefficient=0.3)

    terms, ranked = [], 0
    for row in data:
        chosen, rejected = (
            model(one_row(row["prompt_ids"] + row[name])).sequence_rewards[0]
            for name in ("chosen_ids", "rejected_ids")
        )
        ranked += int(chosen > rejected)
        terms.append(
            -torch.log(torch.sigmoid(chosen - rejected - row["margin"]))
            + 0.3 * (chosen + rejected) ** 2
        )
    assert_same(model, result.loss, torch.stack(terms).mean())
    assert result.metrics["accuracy"].item() == pytest.approx(ranked / len(data))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["right", "left"]))
def test_constraint_agrees_on_random_lengths(seed, side):
    model = vocabulary_model("llama")
    data = [row for row in rows(seed, longest=6) if row["chosen_lengths"]]
    if not data:
        return
    batch = to_batch(PairCollator(2, side, paired=False, prefixes="chosen_lengths")(data))
    fast = max_constraint(model(batch, CONSTRAINT), batch).loss.item()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in data:
            logits = model.carrier(torch.tensor([row["prompt_ids"] + row["chosen_ids"]])).logits[0]
            for length in row["chosen_lengths"]:
                end = len(row["prompt_ids"]) + length - 1
                token = row["chosen_ids"][length - 1]
                total += (logits[end - 1, token] - logits[end].max()).item() ** 2
                count += 1
    assert fast == pytest.approx(total / count, rel=1e-9)


def test_batch_without_prefixes_gives_zero_with_a_gradient_path():
    model, data = vocabulary_model("llama"), rows(seed=1)
    for row in data:
        row["chosen_lengths"] = []
    batch = to_batch(PairCollator(2, paired=False, prefixes="chosen_lengths")(data))
    loss = max_constraint(model(batch, CONSTRAINT), batch).loss
    loss.backward()
    assert loss.item() == 0.0


def fixed(chosen, rejected):
    rewards = torch.tensor([*chosen, *rejected], dtype=torch.float64)
    count = len(chosen)
    ids = torch.zeros(2 * count, 1, dtype=torch.long)
    batch = PairBatch(ids, ids + 1, ids.bool(), ids.bool(), torch.zeros(count))
    return fixed_output(rewards, rewards[:, None, None]), batch


def test_known_values_and_ties():
    result = bradley_terry(*fixed([0.0, 2.0], [0.0, 1.0]))
    assert result.loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-1))) / 2)
    assert result.metrics["accuracy"].item() == pytest.approx(0.75)


def test_huge_gaps_stay_finite():
    assert bradley_terry(*fixed([-1e4], [1e4])).loss.item() == pytest.approx(2e4)


def test_weighted_sum_and_its_refusals():
    output, batch = fixed([1.0], [0.5])
    both = build_objective([
        TermConfig(name="bradley_terry"),
        TermConfig(name="bradley_terry", weight=0.5, options={"center_coefficient": 1.0}),
    ])
    plain = bradley_terry(output, batch)
    centred = bradley_terry(output, batch, center_coefficient=1)
    assert both(output, batch).loss.item() == pytest.approx(
        plain.loss.item() + 0.5 * centred.loss.item()
    )
    with pytest.raises(ConfigError, match="different prefixes"):
        build_objective([TermConfig(name="partial"), TermConfig(name="max_constraint")])
    with pytest.raises(ConfigError, match=r"Unknown objective.*Did you mean 'bradley_terry'"):
        build_objective([TermConfig(name="bradley_tery")])
    with pytest.raises(ConfigError, match=r"'partial' has no option 'weight'.*Known: "):
        build_objective([TermConfig(name="partial", options={"weight": 1})])


def test_objective_names_the_field_that_the_head_lacks():
    objective = build_objective([TermConfig(name="max_constraint")])
    with pytest.raises(ConfigError, match="best_next_token"):
        check_head_gives(objective, HeadConfig(kind="scalar"))
    check_head_gives(objective, HeadConfig(kind="vocabulary"))


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("detach", [False, True])
def test_soft_constraint_equals_the_mean_of_exponentials(temperature, detach):
    model, data = vocabulary_model("gpt_neox"), rows(seed=6)
    collate = PairCollator(2, "left", paired=False, prefixes="chosen_lengths")
    batch = to_batch(collate(data))
    options = {"detach_target": detach, "temperature": temperature}
    objective = build_objective([TermConfig(name="max_constraint", options=options)])
    fast = objective(model(batch, objective.needs, objective.temperatures), batch).loss

    errors = []
    for row in data:
        logits = model.carrier(torch.tensor([row["prompt_ids"] + row["chosen_ids"]])).logits[0]
        for length in row["chosen_lengths"]:
            end = len(row["prompt_ids"]) + length - 1
            soft = temperature * (logits[end] / temperature).exp().mean().log()
            target = soft.detach() if detach else soft
            errors.append((logits[end - 1, row["chosen_ids"][length - 1]] - target) ** 2)
    assert_same(model, fast, torch.stack(errors).mean())


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, True, "warm"])
def test_soft_constraint_refuses_what_is_no_temperature(temperature):
    with pytest.raises(ConfigError, match="number above 0"):
        build_objective([TermConfig(name="max_constraint", options={"temperature": temperature})])
