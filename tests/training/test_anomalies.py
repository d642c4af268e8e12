"""What is not finite stops a training, what stands out is told."""

import json
import logging

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rewardsteer.errors import NonFiniteError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.anomalies import Losses, LossSpikeDetector
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from rewardsteer.training.trainer import RewardTrainer
from tests.fakes import character_tokenizer, save_tiny
from tests.objectives.test_objectives import rows


def run(folder, *, change=None, log=None, accumulation=2, **options):
    torch.manual_seed(0)
    model = RewardModel.from_base(save_tiny(folder / "base"), HeadConfig())
    if change is not None:
        change(model)
    fit(
        model, character_tokenizer(), build_objective([TermConfig(name="bradley_terry")]),
        rows(seed=1, count=48), folder / "run", folder / "metrics.jsonl",
        optimiser=OptimiserConfig(
            learning_rate=1e-4, per_device_train_batch_size=2,
            gradient_accumulation_steps=accumulation,
        ),
        log=LogConfig(logging_steps=1, progress=False, print_logs=False, **(log or {})), **options,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path):
    weights = []

    def change(model):
        weights.append(model.base.score.weight)
        calls = []

        def poison(gradient):
            calls.append(1)
            return gradient * float("nan") if len(calls) == 4 else gradient

        weights[0].register_hook(poison)

    with pytest.raises(NonFiniteError, match=r"The gradient became nan at update 2.*held rows"):
        run(tmp_path, change=change)
    assert torch.isfinite(weights[0]).all()
    record = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert (record["step"], record["what"]) == (2, "gradient")
    assert len(record["row_ids"]) == 4  # both batches of the update
    assert set(record) == {"step", "what", "value", "row_ids", "suspects"}


def test_rows_that_are_not_finite_themselves_are_named(tmp_path, monkeypatch):
    real = RewardModel.forward

    def poisoned(self, *read, **options):
        output, batch = real(self, *read, **options), read[0]
        if "3" in batch.row_ids or "r3" in batch.row_ids:
            rewards = output.sequence_rewards.clone()
            place = [name.strip("r") for name in batch.row_ids].index("3")
            rewards[place] = float("nan")
            return output._replace(sequence_rewards=rewards)
        return output

    monkeypatch.setattr(RewardModel, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r"The loss became nan at update .* held rows 3 "):
        run(tmp_path)
    record = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert [name.strip("r") for name in record["suspects"]] == ["3"]
    assert record["suspects"][0] in record["row_ids"]


@pytest.mark.parametrize("bad", [0, 2])
def test_a_bad_loss_of_any_batch_stops_before_the_weights_change(tmp_path, monkeypatch, bad):
    """The losses of an update's three batches are checked together."""
    model = []
    batches = []
    real = RewardModel.forward

    def poisoned(self, *read, **options):
        output = real(self, *read, **options)
        batches.append(read[0].row_ids)
        if len(batches) == 4 + bad:  # of the second update
            output = output._replace(sequence_rewards=output.sequence_rewards * float("inf"))
            model.append({name: value.clone() for name, value in self.state_dict().items()})
            model.append(self)
        return output

    monkeypatch.setattr(RewardModel, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r"The loss became (nan|inf) at update 2; "):
        run(tmp_path, accumulation=3)
    before, after = model
    assert len(batches) == 6
    assert all(torch.equal(before[name], value) for name, value in after.state_dict().items())
    record = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert sorted(record["suspects"]) == sorted(batches[3 + bad])
    assert sorted(record["row_ids"]) == sorted(row for batch in batches[3:] for row in batch)


class HostReads(TorchDispatchMode):
    """Counts how often a number of a tensor is asked for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_losses_are_read_once_per_update(tmp_path, monkeypatch):
    """Each such reading makes a GPU wait for everything before it."""
    found = []
    step, take = RewardTrainer.training_step, Losses.take

    def counted(self, *args, **options):
        with HostReads() as reads:
            loss = step(self, *args, **options)
        found.append(reads.count)
        return loss

    def noted(self):
        assert len(self) == 3
        found.append("losses")
        return take(self)

    monkeypatch.setattr(RewardTrainer, "training_step", counted)
    monkeypatch.setattr(Losses, "take", noted)
    run(tmp_path, accumulation=3)
    assert found == [0, 0, "losses", 0] * 8
    with HostReads() as reads:
        torch.ones(()).item()
    assert reads.count == 1


def test_spikes():
    watch = LossSpikeDetector(4.0)
    usual = [0.7, 0.6, 0.65, 0.72, 0.58, 0.66, 0.69, 0.61, 0.63, 0.7]
    assert [watch.note(loss) for loss in usual[:-1]] == [None] * 9
    assert watch.note(50.0) is None  # too few to say what is usual
    watch.restore(usual)
    assert watch.state() == usual
    assert watch.note(0.8) is None
    assert watch.note(1.2) == pytest.approx(0.66)
    assert watch.note(float("nan")) is None
    flat = LossSpikeDetector(4.0)
    flat.restore([0.5] * 50)
    assert flat.note(0.5001) is None
    assert flat.note(0.6) == 0.5
    assert len(flat.state()) == 50


def test_a_spike_is_logged_with_its_rows(tmp_path, monkeypatch, caplog):
    real = RewardModel.forward
    calls = []

    def spiked(self, *read, **options):
        output = real(self, *read, **options)
        calls.append(1)
        if len(calls) == 23:
            moved = output.sequence_rewards + torch.tensor([-30.0] * 2 + [30] * 2)
            output = output._replace(sequence_rewards=moved)
        return output

    monkeypatch.setattr(RewardModel, "forward", spiked)
    with caplog.at_level(logging.WARNING, logger="rewardsteer"):
        lines = run(tmp_path, log={"spike_threshold": 6.0})
    (line,) = [line for line in lines if "loss_spike" in line]
    assert line["step"] == 12
    assert line["loss_spike"] > 20 > line["loss_usual"]
    assert "the loss of update 12 stands out" in caplog.text


def test_deterministic_mode(tmp_path):
    try:
        run(tmp_path, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
