"""Backups: the equations, the kernels that compute them in pieces, and what guidance by each is
worth on random trees, by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import ConfigError
from rewardsteer.kernels.policy_backups import policy_mean, policy_top_k
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.objectives.max_constraint import build
from tests.objectives.backups import (
    max_backup,
    mean_backup,
    soft_backup,
    success_value,
    top_k_backup,
    uniform_soft_backup,
)
from tests.objectives.test_objectives import assert_same, rows, vocabulary_model

WIDTH, DEPTH, TREES = 5, 3, 60
BACKUPS = {
    "soft": lambda q, p, eta: soft_backup(q, p, eta),
    "mean": lambda q, p, eta: mean_backup(q, p),
    "max": lambda q, p, eta: max_backup(q),
    "top_k": lambda q, p, eta: top_k_backup(q, p, 3),
    "uniform": lambda q, p, eta: uniform_soft_backup(q, eta),
}


@pytest.fixture(scope="module")
def trees():
    """Random policies and rewards: log-probabilities by depth ``[60, 5^t, 5]``, rewards
    ``[60, 125]``."""
    rng = np.random.default_rng(1)
    policies, rewards = [[] for _ in range(DEPTH)], []
    paths = list(itertools.product(range(WIDTH), repeat=DEPTH))
    for _ in range(TREES):
        sharpness, known = rng.choice([1.0, 2.5]), {}
        rewards.append([rng.normal() for _ in paths])
        for path in paths:
            for depth in range(DEPTH):
                if path[:depth] not in known:
                    logits = sharpness * rng.normal(size=WIDTH)
                    known[path[:depth]] = torch.tensor(logits).log_softmax(0)
        for depth in range(DEPTH):
            prefixes = itertools.product(range(WIDTH), repeat=depth)
            policies[depth].append(torch.stack([known[one] for one in prefixes]))
    return [torch.stack(one) for one in policies], torch.tensor(np.array(rewards))


def values_of(backup, trees, temperature):
    """Rewards of one-token extensions by depth, backed up from the leaves; temperature ``[60]``."""
    policies, leaves = trees
    found = [leaves.view(TREES, -1, WIDTH)]
    for depth in range(DEPTH - 1, 0, -1):
        value = [
            BACKUPS[backup](found[0][tree], policies[depth][tree], float(temperature[tree]))
            for tree in range(TREES)
        ]
        found.insert(0, torch.stack(value).view(TREES, -1, WIDTH))
    return found


def guided_law(trees, values, weight):
    """Log-probabilities ``[60, 125]`` of whole responses under guidance."""
    total = torch.zeros(TREES, 1, dtype=torch.double)
    for policy, value in zip(trees[0], values, strict=True):
        scores = (policy + weight[:, None, None] * value).log_softmax(-1)
        total = (total[..., None] + scores).flatten(1)
    return total


@pytest.mark.parametrize(("backup", "published"), [
    ("soft", 0.877), ("mean", 0.831), ("uniform", 0.770), ("max", 0.721), ("top_k", 0.763),
])
def test_gain_at_equal_divergence_is_that_of_the_enumeration(trees, backup, published):
    base = guided_law(trees, values_of("mean", trees, torch.ones(TREES)), torch.zeros(TREES))
    low, high = torch.zeros(TREES).double(), torch.full((TREES,), 30.0).double()
    for _ in range(40):
        weight = (low + high) / 2
        law = guided_law(trees, values_of(backup, trees, 1 / weight), weight)
        below = (law.exp() * (law - base)).sum(1) < 0.5
        low, high = low.where(~below, weight), high.where(below, weight)
    gain = ((law.exp() - base.exp()) * trees[1]).sum(1).mean()
    assert round(float(gain), 3) == published


def test_soft_backup_gives_the_tilted_law_and_no_other_does(trees):
    eta = torch.full((TREES,), 0.7, dtype=torch.double)
    base = guided_law(trees, values_of("mean", trees, eta), torch.zeros(TREES))
    tilted = (base + trees[1] / 0.7).log_softmax(1)
    apart = {
        name: float((guided_law(trees, values_of(name, trees, eta), 1 / eta).exp()
                     - tilted.exp()).abs().sum(1).max() / 2)
        for name in BACKUPS
    }
    assert apart.pop("soft") < 1e-12
    assert min(apart.values()) > 0.05


@pytest.mark.parametrize("temperature", [0.01, 0.7, 50.0])
def test_value_of_a_success_is_the_soft_backup_of_both_outcomes(temperature):
    probability = torch.tensor([0.0, 1e-6, 0.3, 0.999, 1.0], dtype=torch.double)
    outcomes = torch.tensor([1.0, 0.0], dtype=torch.double).expand(5, 2)
    both = torch.stack([probability, 1 - probability], dim=1).log()
    torch.testing.assert_close(
        success_value(probability, temperature), soft_backup(outcomes, both, temperature),
        atol=1e-9, rtol=1e-9,
    )


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("numbers", [6, None])
def test_kernels_equal_the_equations_in_values_and_gradients(biased, numbers):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    parts = [draw(7, 4), draw(23, 4), draw(23) if biased else None]
    policy = OutputLayer(3 * draw(7, 5), draw(23, 5), draw(23) if biased else None)
    log_policy = policy.logits(slice(None)).log_softmax(-1)
    for fast, plain in [
        (lambda *p: policy_mean(*p, policy, numbers=numbers), lambda q: mean_backup(q, log_policy)),
        (lambda *p: policy_top_k(*p, policy, 4, numbers=numbers),
         lambda q: top_k_backup(q, log_policy, 4)),
    ]:
        given = [None if one is None else one.clone().requires_grad_() for one in parts]
        present = [one for one in given if one is not None]
        ours = fast(*given)
        theirs = plain(torch.nn.functional.linear(*given))
        torch.testing.assert_close(ours, theirs)
        upstream = draw(7)
        for one, other in zip(torch.autograd.grad(ours, present, upstream, retain_graph=True),
                              torch.autograd.grad(theirs, present, upstream), strict=True):
            torch.testing.assert_close(one, other)


def test_kernels_take_no_position_at_all():
    empty = torch.zeros(0, 4, requires_grad=True)
    policy = OutputLayer(torch.zeros(0, 5), torch.zeros(9, 5))
    assert policy_mean(empty, torch.zeros(9, 4), None, policy).shape == (0,)
    assert policy_top_k(empty, torch.zeros(9, 4), None, policy, 2).shape == (0,)


@pytest.mark.parametrize("options", [
    {"backup": "policy_soft", "temperature": 0.5}, {"backup": "policy_mean"},
    {"backup": "policy_top_k", "top_k": 3, "detach_target": True},
])
def test_constraint_under_a_policy_equals_its_equation(options):
    model, data = vocabulary_model("gpt_neox"), rows(seed=6)
    model.set_policy(vocabulary_model("llama"))
    batch = to_batch(PairCollator(2, "left", paired=False, prefixes="chosen_lengths")(data))
    objective = build(**options)
    output = model(batch, objective.needs, objective.temperatures, objective.backups)
    fast = objective(output, batch).loss

    errors = []
    for row in data:
        tokens = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
        logits = model.carrier(tokens).logits[0]
        policy = model.policy.carrier(tokens).logits[0].detach().log_softmax(-1)
        for length in row["chosen_lengths"]:
            end = len(row["prompt_ids"]) + length - 1
            target = {
                "policy_soft": lambda q, p: soft_backup(q, p, 0.5), "policy_mean": mean_backup,
                "policy_top_k": lambda q, p: top_k_backup(q, p, 3).detach(),
            }[options["backup"]](logits[end], policy[end])
            errors.append((logits[end - 1, row["chosen_ids"][length - 1]] - target) ** 2)
    assert_same(model, fast, torch.stack(errors).mean())
    assert not [name for name, _ in model.named_parameters() if "policy" in name]


@pytest.mark.parametrize(("options", "message"), [
    ({"backup": "median"}, "must be one of max, soft, policy_soft"),
    ({"backup": "policy_soft"}, "needs a temperature"),
    ({"backup": "policy_mean", "temperature": 1.0}, "has no temperature"),
    ({"backup": "policy_top_k"}, "needs top_k"),
    ({"backup": "policy_top_k", "top_k": 0}, "whole number from 1"),
    ({"top_k": 3}, "has no top_k"),
])
def test_options_that_belong_to_another_backup_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_maximum_and_mean_are_limits_of_the_soft_backup():
    rewards = torch.tensor([0.3, -1.0, 2.0], dtype=torch.double)
    policy = torch.tensor([0.2, 0.5, 0.3], dtype=torch.double).log()
    assert math.isclose(soft_backup(rewards, policy, 1e-4), max_backup(rewards), abs_tol=1e-3)
    assert math.isclose(soft_backup(rewards, policy, 1e5), mean_backup(rewards, policy),
                        abs_tol=1e-4)
