"""An objective and a source of somebody else: a new number per row from the source to the loss."""

import json
import math

import pytest
from torch.nn.functional import relu

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult, split_pairs
from rewardsteer.records import Comparison
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.fakes import save_tiny

HERE = "tests.objectives.test_outside"


def load(split, *, path=None, reading=None, rows=8):
    """Sums, each with a number of its own."""
    for number in range(rows):
        yield Comparison(
            id=str(number), prompt=f"{number}+1=", chosen=str(number + 1), rejected="x",
            extras={"importance": float(number % 2)},
        )


def build(width=1.0):
    """A hinge loss in which the source's ``importance`` weighs the rows."""

    def hinge(output, batch):
        chosen, rejected = split_pairs(output.sequence_rewards, batch)
        weight = batch.extras["importance"]
        losses = weight * relu(width - (chosen - rejected))
        loss = global_mean(losses.sum(), weight.sum())
        return ObjectiveResult(loss, {"importance": weight.mean()})

    return Objective("hinge", hinge)


def run(tmp_path, **options):
    base = save_tiny(tmp_path / "base")
    config = TrainConfig.model_validate({
        "base_model": str(base),
        "data": {
            "sources": [{"name": f"{HERE}:load"}], "test_fraction": 0.25, "drop_overlap": False,
            "template": {"kind": "text"},
        },
        "phases": [{"objective": [{"name": f"{HERE}:build", "options": options}]}],
        "optimiser": {"max_steps": 2, "learning_rate": 1e-2},
        "log": {"progress": False, "logging_steps": 1},
    })
    train(config, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    return [line for line in lines if "loss" in line]


def test_it_trains_on_the_sources_numbers(tmp_path):
    first, second = run(tmp_path, width=2.0)
    assert first["importance"] == pytest.approx(0.5)
    assert math.isfinite(first["loss"])
    assert second["loss"] < first["loss"]


def test_its_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"no option 'breadth'.*Known: width"):
        run(tmp_path, breadth=2.0)

