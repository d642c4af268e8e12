"""Training on labelled steps, end to end on a tiny model; rows that do not suit an objective."""

import json

import pytest

from rewardsteer.configuration import load_config
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.checkpoint import read_card
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.fakes import save_tiny
from tests.training.engines import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Steps that say yes are correct, steps that say no are not."""
    folder = tmp_path_factory.mktemp("steps")
    from transformers import AutoTokenizer

    save_tiny(folder / "base")
    rows = []
    for i in range(40):
        labels = [(i >> step) % 2 == 0 for step in range(3)]
        steps = [f"{i} is {'yes' if label else 'no'}" for label in labels]
        rows.append({"prompt": f"Is {i}?", "completions": steps, "labels": labels})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(source={"name": "stepwise", "path": str(path)}, test_fraction=0.3)
    prepare(config, AutoTokenizer.from_pretrained(folder / "base"), folder / "data")
    make_world(folder / "pairs", rows=24)
    return folder


def settings(world, objective="process", folder="data", base="base", phase=(), **changes):
    return load_config(TrainConfig, {
        "base_model": str(world / base), "prepared": str(world / folder),
        "phases": [{"objective": [{"name": objective}], **dict(phase)}],
        "optimiser": {
            "learning_rate": 3e-3, "per_device_train_batch_size": 7, "num_train_epochs": 12,
            "precision": "fp32",
        },
        "log": {"progress": False, "print_logs": False}, **changes,
    })


def test_training_learns_which_steps_are_correct(world, tmp_path):
    place = train(settings(world), tmp_path / "run")
    state = json.loads((tmp_path / "run" / "state.json").read_text())[0]
    assert state["eval_accuracy"] > 0.95
    assert state["eval_single"]
    card = read_card(place)
    assert card.objective == "process"
    assert card.reading == "step_logit"
    assert card.metrics[0].on == "stepwise: held-out responses"
    assert card.metrics[0].low is None


def test_the_best_checkpoint_is_the_most_accurate_one(world, tmp_path):
    config = settings(world, select="best", log={
        "progress": False, "print_logs": False, "eval_steps": 5, "save_steps": 5,
    })
    assert (train(config, tmp_path / "run") / "rewardsteer.json").exists()


def test_a_figure_of_pairs_does_not_choose_the_best_of_single_responses(world, tmp_path):
    config = settings(world, trainer={"metric_for_best_model": "reward_gap"})
    with pytest.raises(ConfigError, match=r"'reward_gap', which is no .* Known: accuracy, loss\."):
        train(config, tmp_path / "run")
    assert not any((tmp_path / "run").rglob("metrics.jsonl"))


def test_steps_beside_pairs_are_trained_and_both_are_held_out(world, tmp_path):
    rows = [
        {"prompt": f"{i}?", "chosen": f"{i} is yes", "rejected": f"{i} is no"} for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(world, prepared=None, data={"test_fraction": 0.3, "sources": [
        {"name": "stepwise", "path": str(world / "rows.jsonl")},
        {"name": "pairs", "path": str(tmp_path / "pairs.jsonl")},
    ]})
    train(config, tmp_path / "run")
    state = json.loads((tmp_path / "run" / "state.json").read_text())[0]
    assert state["eval_accuracy"] > 0.95


def test_pairs_have_no_labelled_steps(world, tmp_path):
    with pytest.raises(DataError, match=r"'process' needs responses with labelled steps, and the "
                                        r"data in .* has none"):
        train(settings(world, folder="pairs/data", base="pairs/base"), tmp_path / "run")


def test_rows_of_one_response_cannot_be_compared(world, tmp_path):
    with pytest.raises(DataError, match=r"'bradley_terry' compares two responses, and \d+ of the "
                                        r"\d+ training rows in .* have one"):
        train(settings(world, objective="bradley_terry"), tmp_path / "run")


def test_steps_of_a_row_are_not_drawn_apart(world, tmp_path):
    with pytest.raises(ConfigError, match="takes rows, not prefix_rows"):
        train(settings(world, phase={"prefix_rows": 5}), tmp_path / "run")
