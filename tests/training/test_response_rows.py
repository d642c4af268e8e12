"""Responses with numbers, of a source and an objective from outside, all the way to the loss."""

import json

import numpy as np
import pytest
import torch

from rewardsteer.data.collate import to_batch
from rewardsteer.data.collate_responses import ResponseCollator
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.responses import Responses
from rewardsteer.data.sources import NoSplitError
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.base import Measures, Objective, ObjectiveResult
from rewardsteer.objectives.combine import build_objective, combine
from rewardsteer.objectives.counting import count_terms
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.rows import read_lengths
from rewardsteer.training.run import train
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from tests.fakes import character_tokenizer, save_tiny

HERE = "tests.training.test_response_rows"


def load(split, *, path=None, reading=None, rows=12):
    """Groups of one to three responses, all but the first with a score."""
    if split != "train":
        raise NoSplitError(split)
    for number in range(rows):
        responses = [f"{number}{'x' * k}" for k in range(number % 3 + 1)]
        yield Responses(
            id=str(number), prompt=f"{number}+1=", responses=responses, place=f"row {number}",
            numbers={"score": [None, *map(float, range(1, len(responses)))]},
        )


def build():
    """Squared error of the scores."""

    def squared(output, batch):
        values, wanted = output.sequence_rewards, batch.numbers["score"]
        known = torch.isfinite(wanted)
        errors = (values - wanted.where(known, 0.0)).square() * known
        return ObjectiveResult(global_mean(errors.sum(), known.sum()), {})

    measures = Measures(
        lambda output, batch: torch.stack([output.sequence_rewards, batch.groups], 1),
        lambda columns: {"rows": float(len(columns)), "mean": float(np.mean(columns[:, 0]))},
        ("mean", "rows"),
    )
    return Objective("squared", squared, rows="responses", measures=measures)


def config_of(base, **options):
    return {
        "base_model": str(base),
        "data": {
            "sources": [{"name": f"{HERE}:load", "options": options}], "test_fraction": 0.25,
            "template": {"kind": "text"},
        },
        "phases": [{"objective": [{"name": f"{HERE}:build"}]}],
        "optimiser": {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 2},
        "log": {"progress": False, "logging_steps": 1, "print_logs": False},
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    config = DataConfig.model_validate(config_of("unused")["data"])
    prepare(config, character_tokenizer(), folder)
    return folder


def batch_of(prepared, **options):
    rows = sorted(load_set(prepared, "train", "responses"), key=lambda row: int(row["id"]))
    return rows, to_batch(ResponseCollator(0, **options)(rows))


def test_the_set_holds_every_number_where_it_belongs(prepared):
    manifest = load_manifest(prepared)
    assert manifest.counts == {"train": {"responses": 9}, "test": {"responses": 3}}
    rows, _ = batch_of(prepared)
    tokenizer = character_tokenizer()
    for row in rows:
        number = int(row["id"])
        assert len(row["responses"]) == len(row["response_ids"]) == number % 3 + 1
        assert row["numbers"]["score"] == [None, *map(float, range(1, len(row["responses"])))]
        for text, ids in zip(row["responses"], row["response_ids"], strict=True):
            assert tokenizer.decode(ids[:-1]) == text
            assert ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_batch_holds_groups_and_numbers(prepared, side):
    rows, batch = batch_of(prepared, padding_side=side)
    sizes = [len(row["responses"]) for row in rows]
    assert batch.group_ids.tolist() == [n for n, size in enumerate(sizes) for _ in range(size)]
    flat = [value for row in rows for value in row["numbers"]["score"]]
    wanted = torch.tensor([float("nan") if one is None else one for one in flat])
    torch.testing.assert_close(batch.numbers["score"], wanted, equal_nan=True)
    assert not batch.paired
    whole = [row["prompt_ids"] + ids for row in rows for ids in row["response_ids"]]
    for ids, line, mask in zip(whole, batch.input_ids, batch.attention_mask, strict=True):
        assert line[mask.bool()].tolist() == ids


def test_packed_groups_give_the_rewards_of_padded_ones(prepared, base):
    model = RewardModel.from_base(base, HeadConfig(kind="scalar")).eval()
    _, padded = batch_of(prepared)
    _, packed = batch_of(prepared, packing=PackingCosts(0.0))
    assert packed.packing is not None
    assert packed.computed_tokens < padded.computed_tokens
    torch.testing.assert_close(model(padded).sequence_rewards, model(packed).sequence_rewards)


def test_lengths_count_each_response(prepared):
    rows = load_set(prepared, "train", "responses")
    lengths = read_lengths(rows, paired=False)
    assert lengths.shape == (9, 3)
    assert (lengths == read_lengths(list(rows), paired=False)).all()
    for row, counts in zip(rows, lengths, strict=True):
        own = [len(row["prompt_ids"]) + len(ids) for ids in row["response_ids"]]
        assert counts.tolist() == own + [0] * (3 - len(own))


def test_four_batches_of_two_are_one_of_eight(base, prepared, tmp_path):
    rows = load_set(prepared, "train", "responses")

    def run(name, size, accumulation):
        torch.manual_seed(0)
        model = RewardModel.from_base(base, HeadConfig(kind="scalar"))
        out = tmp_path / name
        fit(
            model, character_tokenizer(), build(), rows, out, out / "log.jsonl",
            optimiser=OptimiserConfig(
                per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
                learning_rate=1e-3, num_train_epochs=1, max_grad_norm=1e9,
            ),
            log=LogConfig(progress=False, print_logs=False, logging_steps=1), packing="off",
        )
        lines = [json.loads(line) for line in (out / "log.jsonl").open()]
        return [line for line in lines if "loss" in line], model

    (whole, one), (parts, other) = run("8x1", 8, 1), run("2x4", 2, 4)
    assert len(whole) == len(parts) == 2
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=2e-4)
    for ours, theirs in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_dummies_count_nothing():
    batch = to_batch(ResponseCollator(0)([]))
    assert batch.is_dummy
    assert batch.groups.tolist() == [0]

    def function(output, batch):
        return ObjectiveResult(global_mean(
            output.sequence_rewards.sum(), torch.tensor(len(output.sequence_rewards))
        ), {})

    assert count_terms(Objective("count", function, rows="responses"), batch).tolist() == [0]


def test_a_run_trains_evaluates_and_resumes(base, tmp_path):
    config = config_of(base)
    whole = train(TrainConfig.model_validate(config), tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").open()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    last = [line for line in lines if "eval_loss" in line][-1]
    assert last["eval_rows"] == sum(n % 3 + 1 for n in _held_out(tmp_path / "whole" / "data"))
    assert {"eval_mean", "eval_loss"} <= last.keys()

    class Interrupted(RuntimeError):
        pass

    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                raise Interrupted

    config["log"]["save_steps"] = 4
    with pytest.raises(Interrupted):
        train(TrainConfig.model_validate(config), tmp_path / "cut", callbacks=[Stop()])
    resumed = train(TrainConfig.model_validate(config), tmp_path / "cut", resume=True)
    ours, theirs = (
        RewardModel.from_pretrained(folder).state_dict() for folder in (whole, resumed)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _held_out(folder):
    return [int(row["id"]) for row in load_set(folder, "test", "responses")]


def test_what_does_not_fit_is_refused(base, tmp_path):
    config = config_of(base)
    config["phases"] = [{"objective": [{"name": "bradley_terry"}]}]
    with pytest.raises(DataError, match=r"holds responses with numbers.*preference pairs are need"):
        train(TrainConfig.model_validate(config), tmp_path / "pairs")
    config = config_of(base) | {"data": {"sources": [{"name": "arithmetic"}], "train_rows": 20}}
    with pytest.raises(DataError, match="holds preference pairs, and responses with numbers"):
        train(TrainConfig.model_validate(config), tmp_path / "responses")
    config = config_of(base)
    config["data"]["sources"].append({"name": "arithmetic"})
    with pytest.raises(DataError, match="preference pairs or responses with numbers, not both"):
        train(TrainConfig.model_validate(config), tmp_path / "mixed")
    with pytest.raises(ConfigError, match="which are different data"):
        combine([(build(), 1.0), (build_objective_of("bradley_terry"), 1.0)])
    with pytest.raises(ValueError, match="1 numbers named score for 2 responses"):
        Responses(id="", prompt="p", responses=["a", "b"], numbers={"score": [1.0]})


def build_objective_of(name):
    from rewardsteer.training.config import TermConfig

    return build_objective([TermConfig(name=name)])
