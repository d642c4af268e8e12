"""Batches summed up before an update count every row, prefix and pair alike."""

import json

import pytest
import torch

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.distributed import global_mean, noting_counts, of_update, within_update
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.counting import count_terms
from rewardsteer.tensors import RewardOutput, TokenStates
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from tests.fakes import character_tokenizer, save_tiny
from tests.objectives.test_objectives import rows

FUTURE = {"name": "goal_contrastive", "options": {"form": "future", "positives": 3}}
OBJECTIVES = {
    "bradley_terry": ("scalar", [
        {"name": "bradley_terry", "options": {"center_coefficient": 0.1}},
    ]),
    "partial": ("scalar", [{"name": "partial"}]),
    "max_constraint": ("vocabulary", [{"name": "max_constraint"}]),
    "soft": ("vocabulary", [{"name": "max_constraint", "options": {"temperature": 0.5}}]),
    "autoregressive": ("vocabulary", [{"name": "autoregressive"}]),
    "future": ("scalar", [FUTURE]),
    "sum": ("vocabulary", [
        {"name": "bradley_terry"}, {"name": "max_constraint", "weight": 0.5}, FUTURE,
    ]),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / "base")


def objective_of(name):
    return build_objective([TermConfig.model_validate(term) for term in OBJECTIVES[name][1]])


def run(base, out, name, batch_size, accumulation, packing="off"):
    torch.manual_seed(0)
    model = RewardModel.from_base(base, HeadConfig(kind=OBJECTIVES[name][0]))
    fit(
        model, character_tokenizer(), objective_of(name), rows(seed=5, count=29, longest=40), out,
        out / "metrics.jsonl",
        optimiser=OptimiserConfig(
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
            learning_rate=1e-3, num_train_epochs=1,
            max_grad_norm=1e9,
        ),
        log=LogConfig(progress=False, print_logs=False, logging_steps=1), packing=packing,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return [line for line in lines if "loss" in line], model


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_four_batches_of_two_are_one_of_eight(base, tmp_path, name):
    whole, one = run(base, tmp_path / "8x1", name, 8, 1)
    parts, other = run(base, tmp_path / "2x4", name, 2, 4)
    assert len(whole) == len(parts) == 4  # the last update has 5 rows: 2, 2 and 1
    figures = ["loss", "grad_norm", *(key for key in whole[0] if key.startswith("loss_"))]
    for ours, theirs in zip(parts, whole, strict=True):
        for figure in figures:
            assert ours[figure] == pytest.approx(theirs[figure], rel=2e-4, abs=1e-5), figure
    for ours, theirs in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def batches_of(name, sizes):
    objective = objective_of(name)
    collate = PairCollator(0, "right", objective.rows == "pairs", objective.prefixes)
    found, start = [], 0
    data = rows(seed=5, count=sum(sizes), longest=40)
    for size in sizes:
        found.append(to_batch(collate(data[start : start + size])))
        start += size
    return objective, found


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_counts_are_found_before_any_forward_pass(name):
    objective, found = batches_of(name, [3, 5])
    _, (whole,) = batches_of(name, [8])
    counts = [count_terms(objective, batch) for batch in found]
    assert torch.equal(sum(counts), count_terms(objective, whole))
    assert (counts[0] > 0).all()
    found[1].is_dummy = True
    assert not count_terms(objective, found[1]).any()


def test_a_mean_within_an_update_is_its_share():
    totals, counts = torch.tensor([3.0, 9.0]), torch.tensor([1.0, 5.0])
    with noting_counts() as noted:
        for total, count in zip(totals, counts, strict=True):
            assert global_mean(total, count) == 0
            of_update(total, count)
    assert torch.equal(torch.stack(noted), torch.tensor([1.0, 1.0, 5.0, 5.0]))
    parts = []
    for total, count in zip(totals, counts, strict=True):
        with within_update(torch.tensor([6.0, 6.0])):
            parts += [global_mean(total, count), of_update(total, count)]
    assert parts[0] + parts[2] == totals.sum() / 6
    assert parts[1] + parts[3] == (3.0 * 1 + 9.0 * 5) / 6
    assert global_mean(totals[1], counts[1]) == 9 / 5
    assert of_update(totals[1], counts[1]) == 9


def test_terms_that_share_a_metric_keep_theirs(base, tmp_path):
    OBJECTIVES["both"] = ("scalar", [{"name": "bradley_terry"}, {"name": "partial"}])
    lines, _ = run(base, tmp_path / "both", "both", 8, 1)
    alone, _ = run(base, tmp_path / "alone", "bradley_terry", 8, 1)
    first = lines[0]
    assert first["bradley_terry/accuracy"] == alone[0]["accuracy"]
    assert first["bradley_terry/accuracy"] != first["partial/accuracy"]
    assert "accuracy" not in first
    assert first["loss"] == pytest.approx(
        first["loss_bradley_terry"] + first["loss_partial"], rel=1e-5
    )
    twice = objective_of("bradley_terry")
    from rewardsteer.objectives.combine import combine

    _, (batch,) = batches_of("bradley_terry", [4])
    model = RewardModel.from_base(base, HeadConfig(kind="scalar"))
    result = combine([(twice, 1.0), (twice, 0.5)])(model(batch), batch)
    assert {"loss_bradley_terry_1", "loss_bradley_terry_2"} == set(result.terms)


def test_draws_change_from_update_to_update_and_not_with_their_company(base):
    objective, (first, second) = batches_of("future", [4, 4])
    _, (whole,) = batches_of("future", [8])
    model = RewardModel.from_base(base, HeadConfig(kind="scalar"))

    class Recorded(TokenStates):
        def at(self, rows, columns):
            seen[rows, columns] = True
            return super().at(rows, columns)

    def marked(batch, draw):
        nonlocal seen
        batch.draw, seen = draw, torch.zeros_like(batch.response_mask)
        states = model(batch, {"states"}).states
        output = RewardOutput(torch.zeros(len(batch.input_ids)), Recorded(*states))
        objective(output, batch)
        return seen

    seen = None

    assert torch.equal(marked(first, "0/3"), marked(first, "0/3"))
    assert not torch.equal(marked(first, "0/3"), marked(first, "0/4"))
    ours = marked(whole, "0/3")[:4, : first.input_ids.shape[1]]
    assert torch.equal(ours, marked(first, "0/3")[:4])
    with torch.no_grad():
        apart = [objective(model(batch, objective.needs), batch).loss for batch in (first, second)]
    assert all(torch.isfinite(one) for one in apart)
