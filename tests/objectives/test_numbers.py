"""Objectives on numbers of responses against plain computations from their equations, in float64:
loss, gradients, terms under gradient accumulation, figures."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from rewardsteer.data.collate import to_batch
from rewardsteer.data.collate_responses import ResponseCollator
from rewardsteer.distributed import within_update
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.objectives.agreement import auroc
from rewardsteer.objectives.combine import build_objective, combine
from rewardsteer.objectives.counting import count_terms
from rewardsteer.objectives.numbers import numbers_of
from rewardsteer.tensors import RewardOutput
from rewardsteer.training.config import TermConfig

NAN = float("nan")
GROUPS = [[3.0, 1.0, 2.0, 2.0], [0.0, 4.0], [1.0], [NAN, 2.0, 0.0], [1.0, 1.0], [NAN]]
CASES = {
    "regression": {}, "listwise": {}, "listwise pairs": {"form": "pairs"},
    "labels": {"desirable_weight": 2.0, "undesirable_weight": 0.5},
    "labels kto": {"form": "kto", "desirable_weight": 1.5},
    "regression several": {"attributes": ["helpfulness", "verbosity"]},
}


def objective_of(case):
    return build_objective([TermConfig(name=case.split()[0], options=CASES[case])])


def rows_of(groups, seed=0):
    generator = np.random.default_rng(seed)
    made = []
    for number, values in enumerate(groups):
        lengths = generator.integers(1, 6, len(values))
        numbers = [None if math.isnan(value) else value for value in values]
        made.append({
            "id": str(number), "prompt_ids": [5, 6],
            "response_ids": [generator.integers(3, 70, length).tolist() for length in lengths],
            "numbers": {
                "rating": numbers, "helpfulness": numbers,
                "label": [None if value is None else float(value >= 2) for value in numbers],
                "verbosity": [None if i % 2 else float(i) for i in range(len(values))],
            },
        })
    return made


def batch_of(groups):
    return to_batch(ResponseCollator(0)(rows_of(groups)))


def output_of(batch, seed=0, attributes=2):
    generator = torch.Generator().manual_seed(seed)
    count = len(batch.input_ids)
    return RewardOutput(
        torch.randn(count, generator=generator, dtype=torch.float64).requires_grad_(),
        attributes=torch.randn(
            count, attributes, generator=generator, dtype=torch.float64
        ).requires_grad_(),
    )


def sigma(value):
    return 1 / (1 + math.exp(-value))


def plain(case, groups, output):
    """The loss from its equation, response by response."""
    rewards = output.sequence_rewards.tolist()
    rated, start = [], 0
    for values in groups:
        rated.append(list(zip(rewards[start : start + len(values)], values, strict=True)))
        start += len(values)
    if case == "regression":
        errors = [(r - y) ** 2 for group in rated for r, y in group if not math.isnan(y)]
        return sum(errors) / len(errors)
    if case == "regression several":
        errors = []
        for row, values in zip(output.attributes.tolist(), _both(groups), strict=True):
            errors += [(r - y) ** 2 for r, y in zip(row, values, strict=True) if not math.isnan(y)]
        return sum(errors) / len(errors)
    if case.startswith("labels"):
        options = CASES[case]
        good, bad = options["desirable_weight"], options.get("undesirable_weight", 1.0)
        losses = []
        for r, y in (pair for group in rated for pair in group if not math.isnan(pair[1])):
            p = sigma(r) if y >= 2 else sigma(-r)
            weight = good if y >= 2 else bad
            losses.append(weight * (1 - p if case == "labels kto" else -math.log(p)))
        return sum(losses) / len(losses)
    totals = []
    for group in rated:
        known = [pair for pair in group if not math.isnan(pair[1])]
        pairs = [
            (a, b) if a[1] > b[1] else (b, a) for a, b in combinations(known, 2) if a[1] != b[1]
        ]
        if not pairs:
            continue
        if case == "listwise pairs":
            totals.append(sum(-math.log(sigma(a[0] - b[0])) for a, b in pairs) / len(pairs))
            continue
        total = 0.0
        for r, y in known:
            below = [math.exp(other) for other, rating in known if rating < y]
            total -= math.log(math.exp(r) / (math.exp(r) + sum(below)))
        totals.append(total)
    return sum(totals) / len(totals)


def _both(groups):
    for values in groups:
        for index, value in enumerate(values):
            yield value, NAN if index % 2 else float(index)


@pytest.mark.parametrize("case", list(CASES))
def test_the_loss_is_that_of_its_equation(case):
    batch = batch_of(GROUPS)
    output = output_of(batch)
    loss = objective_of(case)(output, batch).loss
    assert loss.item() == pytest.approx(plain(case, GROUPS, output), rel=1e-6)


@pytest.mark.parametrize("case", list(CASES))
def test_the_gradient_is_that_of_the_loss(case):
    batch, objective = batch_of(GROUPS), objective_of(case)
    output = output_of(batch)

    def loss(rewards, attributes):
        made = RewardOutput(rewards, attributes=attributes)
        return objective(made, batch).loss

    assert gradcheck(loss, (output.sequence_rewards, output.attributes))


def test_plackett_luce_of_a_strict_order_is_the_published_product():
    batch = batch_of([[3.0, 2.0, 1.0, 0.0]])
    output = output_of(batch)
    rewards = output.sequence_rewards
    published = sum(torch.logsumexp(rewards[i:], 0) - rewards[i] for i in range(4))
    torch.testing.assert_close(objective_of("listwise")(output, batch).loss, published)


def test_two_responses_are_a_pair():
    batch = batch_of([[0.0, 1.0]])
    output = output_of(batch)
    first, second = output.sequence_rewards
    wanted = -torch.nn.functional.logsigmoid(second - first)
    for case in ("listwise", "listwise pairs"):
        torch.testing.assert_close(objective_of(case)(output, batch).loss, wanted)


@pytest.mark.parametrize("case", list(CASES))
def test_batches_of_an_update_add_up_to_it(case):
    objective, whole = objective_of(case), batch_of(GROUPS)
    output = output_of(whole)
    counts = count_terms(objective, whole)
    parts, start = [], 0
    rows = rows_of(GROUPS)
    for one in (rows[:1], rows[1:4], rows[4:]):
        batch = to_batch(ResponseCollator(0)(one))
        end = start + len(batch.input_ids)
        part = RewardOutput(
            output.sequence_rewards[start:end], attributes=output.attributes[start:end]
        )
        with within_update(counts):
            parts.append(objective(part, batch).loss)
        counted = count_terms(objective, batch)
        assert counted.shape == counts.shape
        start = end
    torch.testing.assert_close(sum(parts), objective(output, whole).loss)


@pytest.mark.parametrize("case", list(CASES))
def test_a_batch_without_numbers_gives_zero_with_a_gradient(case):
    objective = objective_of(case)
    for batch in (batch_of([[NAN, NAN]]), to_batch(ResponseCollator(0)([]))):
        if case == "regression several":
            continue  # its second attribute is known
        output = output_of(batch)
        loss = objective(output, batch).loss
        loss.backward()
        assert loss == 0
        assert not output.sequence_rewards.grad.any()


@given(st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), min_size=1, max_size=5), min_size=1, max_size=5
), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_orders_of_all_shapes_agree(groups, seed):
    for case in ("listwise", "listwise pairs"):
        batch = batch_of(groups)
        output = output_of(batch, seed)
        loss = objective_of(case)(output, batch).loss.item()
        comparable = any(len({v for v in one if not math.isnan(v)}) > 1 for one in groups)
        assert loss == pytest.approx(plain(case, groups, output) if comparable else 0.0, rel=1e-6)


def figures_of(case, rewards, groups):
    objective, batch = objective_of(case), batch_of(groups)
    output = RewardOutput(torch.tensor(rewards, dtype=torch.float64))
    columns = objective.measures.columns(output, batch)
    found = objective.measures.figures(columns.double().numpy())
    assert not found or found.keys() == set(objective.measures.names)
    return found


def test_figures_of_ratings():
    from scipy.stats import pearsonr, spearmanr

    ratings = [[3.0, 1.0, 2.0], [0.0, 4.0], [NAN, 1.0]]
    rewards = [0.5, 0.1, 0.1, 2.0, 1.0, 9.0, 0.3]
    found = figures_of("regression", rewards, ratings)
    known = [0, 1, 2, 3, 4, 6]
    flat = [value for one in ratings for value in one]
    ours, theirs = [rewards[i] for i in known], [flat[i] for i in known]
    assert found["pearson"] == pytest.approx(pearsonr(ours, theirs).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(ours, theirs).statistic)
    # 3 > 1 right, 3 > 2 right, 2 > 1 a tie, 4 > 0 wrong.
    assert found["pair_accuracy"] == pytest.approx(2.5 / 4)


def test_figures_of_orders():
    found = figures_of(
        "listwise", [0.5, 0.1, 0.1, 2.0, 1.0, 1.0, 1.0, 5.0],
        [[3.0, 1.0, 2.0], [0.0, 4.0], [1.0, 2.0], [3.0]],
    )
    # The third prompt's highest rewards are a tie of a best response and another; the last one
    # has nothing to compare.
    assert found == pytest.approx({"pair_accuracy": 3.0 / 5, "best_first": 1.5 / 3})


def test_figures_of_labels():
    rewards = [0.5, -1.0, 0.5, 3.0, -2.0]
    found = figures_of("labels", rewards, [[2.0], [0.0], [1.0], [4.0], [NAN]])
    # Good ones 0.5 and 3, bad ones -1 and 0.5: three right and a tie.
    assert found == pytest.approx({"auroc": 3.5 / 4, "label_accuracy": 3 / 4})
    assert math.isnan(auroc(np.ones(3), np.ones(3)))
    assert figures_of("labels", [0.5], [[NAN]]) == {}


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_label_smoothing_and_margins_of_pairs(epsilon):
    from rewardsteer.data.collate import PairCollator

    pairs = [
        {"id": str(i), "prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [7], "margin": i / 2}
        for i in range(3)
    ]
    batch = to_batch(PairCollator(0)(pairs))
    batch.margin = batch.margin.double()
    objective = build_objective([
        TermConfig(name="bradley_terry", options={"label_smoothing": epsilon})
    ])
    rewards = torch.tensor([1.0, -0.5, 2.0, 0.5, 0.5, -1.0], dtype=torch.float64).requires_grad_()
    values = rewards.tolist()
    gaps = [r - s - i / 2 for i, (r, s) in enumerate(zip(values[:3], values[3:], strict=True))]
    wanted = sum(
        -(1 - epsilon) * math.log(sigma(d)) - epsilon * math.log(sigma(-d)) for d in gaps
    ) / 3
    assert objective(RewardOutput(rewards), batch).loss.item() == pytest.approx(wanted)
    assert gradcheck(lambda values: objective(RewardOutput(values), batch).loss, (rewards,))


@pytest.mark.parametrize(("name", "options", "message"), [
    ("regression", {"attributes": []}, "list of different names"),
    ("regression", {"attributes": ["a", "a"]}, "list of different names"),
    ("regression", {"attributes": [1]}, "name of a number"),
    ("listwise", {"form": "borda"}, "plackett_luce or pairs"),
    ("listwise", {"number": ""}, "name of a number"),
    ("labels", {"form": "hinge"}, "logistic or kto"),
    ("labels", {"desirable_weight": -1}, "0 or more"),
    ("labels", {"undesirable_weight": math.inf}, "0 or more"),
    ("labels", {"desirable_weight": 0, "undesirable_weight": 0}, "both 0"),
    ("bradley_terry", {"label_smoothing": 0.5}, "0 or more and below 0.5"),
    ("bradley_terry", {"label_smoothing": True}, "0 or more and below 0.5"),
    ("bradley_terry", {"center_coefficient": "a"}, "0 or more"),
    ("bradley_terry", {"center_coefficient": math.nan}, "0 or more"),
    ("partial", {"center_coefficient": -0.1}, "0 or more"),
])
def test_options_are_checked(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_objective([TermConfig(name=name, options=options)])


def test_numbers_that_are_not_there_and_sums_that_do_not_fit():
    with pytest.raises(DataError, match="no number named 'mood'; they have helpfulness"):
        numbers_of(batch_of([[1.0]]), "mood")
    several = [objective_of("regression several"), build_objective([
        TermConfig(name="regression", options={"attributes": ["verbosity", "helpfulness"]})
    ])]
    with pytest.raises(ConfigError, match="same attributes in the same order"):
        combine([(one, 1.0) for one in several])
    whole = combine([(several[0], 1.0), (objective_of("labels"), 1.0)])
    assert whole.attributes == ("helpfulness", "verbosity")
    assert whole.numbers == ("helpfulness", "verbosity", "label")
    batch = batch_of(GROUPS)
    assert len(count_terms(whole, batch)) == 2
