"""Batches of similar length: every row once an epoch, within the budget, the same after a break."""

import json
import logging
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler, skip_first_batches
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.distributed import excluded_from_reductions
from rewardsteer.errors import ConfigError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.tensors import Packing, PairBatch
from rewardsteer.training import fit as fit_module
from rewardsteer.training.accumulator import MetricAccumulator
from rewardsteer.training.batches import (
    LengthBatches,
    ProcessBatches,
    RowBatches,
    describe,
    padded_share,
)
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.phase_callback import PhaseCallback
from rewardsteer.training.rows import read_lengths
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from tests.fakes import character_tokenizer, fixed_output, tiny_causal_lm


def make_rows(count, longest=40, seed=0):
    generator = np.random.default_rng(seed)

    def ids():
        return generator.integers(3, 70, generator.integers(1, longest)).tolist()

    return [
        {"id": str(row), "prompt_ids": ids(), "chosen_ids": ids(), "rejected_ids": ids(),
         "margin": 0.0, "chosen_lengths": [1], "pair_lengths": [1]}
        for row in range(count)
    ]


def column(lengths):
    return np.array(lengths)[:, None]


def greedy(costs, rows, tokens):
    """Longest first into the same batch while it fits."""
    found = []
    for cost in sorted(costs, reverse=True):
        fits = found and (rows is None or len(found[-1]) < rows) and (
            tokens is None or (len(found[-1]) + 1) * found[-1][0] <= tokens
        )
        if fits:
            found[-1].append(cost)
        else:
            found.append([cost])
    return found


limits = st.one_of(
    st.tuples(st.integers(1, 7), st.none()), st.tuples(st.none(), st.integers(1, 200))
)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), limits, st.integers(1, 4))
@settings(deadline=None)
def test_every_epoch_reads_every_row_once_within_the_budget(lengths, limit, processes):
    rows, tokens = limit
    order = LengthBatches(column(lengths), rows=rows, tokens=tokens, processes=processes)
    for epoch in range(3):
        order.epoch = epoch
        found = list(order)
        assert len(found) == len(order)
        assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
        for batch in found:
            assert rows is None or len(batch) <= rows
            cost = len(batch) * max((lengths[row] for row in batch), default=0)
            assert tokens is None or len(batch) == 1 or cost <= tokens
        assert len(found) % processes == 0
        assert all(found) or all(len(batch) <= 1 for batch in found)
        if processes == 1:
            composed = sorted(sorted((lengths[row] for row in b), reverse=True) for b in found)
            assert composed == sorted(greedy(lengths, rows, tokens))


def test_seed_and_epoch_decide_the_order():
    lengths = column(np.random.default_rng(0).integers(1, 12, 64))

    def read(seed, epoch):
        order = LengthBatches(lengths, rows=4, seed=seed)
        order.epoch = epoch
        return list(order)

    assert read(0, 1) == read(0, 1)
    different = [read(0, 0), read(0, 1), read(1, 0)]
    composed = [{frozenset(batch) for batch in found} for found in different]
    sizes = [[lengths[batch[0], 0] for batch in found] for found in different]
    for first in range(3):
        assert lengths[different[first][0]].max() == lengths.max()  # what may not fit comes first
        for second in range(first):
            assert composed[first] != composed[second]  # rows of equal length change batches
            assert sizes[first] != sizes[second]  # and batches their place


@given(st.integers(1, 40), st.integers(1, 5), st.booleans())
@settings(deadline=None)
def test_several_processes_read_together_what_one_reads(count, rows, shuffled):
    seed = 3 if shuffled else None
    alone = RowBatches(count, 4 * rows, seed=seed)
    for processes in (1, 2, 4):
        order = RowBatches(count, 4 * rows // processes, seed=seed, processes=processes)
        for epoch in (0, 1):
            alone.epoch = epoch
            shares = [ProcessBatches(order, process) for process in range(processes)]
            for share in shares:
                share.batch_sampler.epoch = epoch
            read = [list(share) for share in shares]
            assert [len(part) for part in read] == [len(alone)] * processes == [
                len(share) for share in shares
            ]
            together = [list(chain(*parts)) for parts in zip(*read, strict=True)]
            assert together == list(alone)
            for parts in zip(*read, strict=True):
                sizes = [len(part) for part in parts]
                assert max(sizes) - min(sizes) <= 1
    assert sorted(chain(*alone)) == list(range(count))


def test_the_random_order_is_that_of_the_library():
    library = SeedableRandomSampler(range(50), data_seed=7)
    order = RowBatches(50, 8, seed=7)
    for epoch in range(2):
        order.epoch = epoch
        library.set_epoch(epoch)
        assert list(chain(*order)) == list(library)


@pytest.mark.parametrize("paired", [True, False])
def test_a_process_without_a_row_stands_aside(paired):
    batch = to_batch(PairCollator(2, "right", paired, "chosen_lengths", 0.1)([]))
    assert batch.is_dummy
    assert len(batch.margin) == 1
    assert len(batch.input_ids) == 1 + paired
    objective = build_objective([TermConfig(name="bradley_terry")])
    if paired:
        rewards = torch.tensor([1.0, 3.0], requires_grad=True)
        output = fixed_output(rewards, torch.zeros(2, 2, 4))
        with excluded_from_reductions(batch.is_dummy):
            loss = objective(output, batch).loss
        loss.backward()
        assert loss.item() == 0
        assert rewards.grad.tolist() == [0, 0]


def loader(order, process):
    share = ProcessBatches(order, process)
    return DataLoader(range(len(order.costs)), batch_sampler=share, collate_fn=list)


def test_two_processes_share_an_epoch_and_wait_little():
    lengths = np.random.default_rng(0).integers(1, 400, 101)
    order = LengthBatches(column(lengths), tokens=900, processes=2)
    alone = LengthBatches(column(lengths), tokens=900)
    assert len(alone) % 2 == 1  # one batch has to be halved
    first, second = list(loader(order, 0)), list(loader(order, 1))
    assert len(first) == len(second) == len(loader(order, 0)) == (len(alone) + 1) // 2
    read = [row for batch in first + second for row in batch]
    assert sorted(read) == list(range(101))
    costs = [[len(b) * lengths[b].max() for b in batches] for batches in (first, second)]
    waited = sum(abs(a - b) for a, b in zip(*costs, strict=True)) / sum(map(sum, costs))
    assert waited < 0.1


def test_with_more_processes_than_rows_some_stand_aside():
    order = LengthBatches(column([5, 3, 4]), rows=2, processes=4)
    read = [list(loader(order, process)) for process in range(4)]
    assert [len(batches) for batches in read] == [1, 1, 1, 1]
    assert sorted(row for batches in read for batch in batches for row in batch) == [0, 1, 2]


@pytest.mark.parametrize("process", [0, 1])
def test_two_processes_resume_within_the_second_epoch(process):
    order = LengthBatches(column(np.random.default_rng(0).integers(1, 40, 60)), rows=4, processes=2)
    order.epoch = 1
    whole = list(loader(order, process))
    again = LengthBatches(np.array(order.costs)[:, None], rows=4, processes=2)
    resumed = skip_first_batches(loader(again, process), 3)
    callback = PhaseCallback(SimpleNamespace(order=again))
    callback.on_epoch_begin(None, SimpleNamespace(epoch=1.4), None)
    assert list(resumed) == whole[3:]


@pytest.mark.parametrize("paired", [True, False])
def test_lengths_and_padding_are_those_of_the_collator(paired):
    rows = make_rows(50)
    data = Dataset.from_list(rows).shuffle(seed=1).select(range(30))
    lengths = read_lengths(data, paired=paired)
    np.testing.assert_array_equal(lengths, read_lengths(list(data), paired=paired))
    sides = ["chosen_ids", "rejected_ids"][: 1 + paired]
    assert lengths.tolist() == [
        [len(row["prompt_ids"] + row[side]) for side in sides] for row in data
    ]
    collate = PairCollator(0, "right", paired)
    batch = collate([data[3], data[7]])
    assert batch["attention_mask"].sum() == lengths[[3, 7]].sum()
    groups = list(LengthBatches(lengths, tokens=300))
    batches = [collate([data[row] for row in group]) for group in groups]
    assert all(b["input_ids"].numel() <= 300 for b in batches if len(b["row_ids"]) > 1)
    real = sum(int(b["attention_mask"].sum()) for b in batches)
    computed = sum(b["input_ids"].numel() for b in batches)
    assert padded_share(lengths, groups) == pytest.approx(1 - real / computed)


def test_describe():
    lengths = column([10, 1, 10, 1])
    by_length = describe(lengths, LengthBatches(lengths, rows=2), 2, seed=2)
    assert by_length == (
        "4 chosen responses of 6 tokens in 2 batches; padding 0% (random order: 45%)"
    )
    at_random = describe(np.repeat(lengths, 2, axis=1), RowBatches(4, 2, seed=2), 2, seed=2)
    assert at_random == "4 pairs of 11 tokens in 2 batches; padding 45% (by length: 0%)"


def run(folder, optimiser, *, rows=None, **options):
    """Train a tiny scalar model; returns its weights and the log lines."""
    torch.manual_seed(0)
    base = folder / "base"
    if not base.exists():
        tiny_causal_lm().save_pretrained(base)
    model = RewardModel.from_base(base, HeadConfig())
    out = folder / "run"
    figures = fit(
        model, character_tokenizer(), build_objective([TermConfig(name="bradley_terry")]),
        rows or make_rows(24), out, folder / "metrics.jsonl",
        optimiser=OptimiserConfig.model_validate({"learning_rate": 1e-2} | optimiser),
        log=LogConfig(logging_steps=1, save_steps=1, progress=False, print_logs=False), seed=3,
        **options,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return model.state_dict(), lines, figures


@pytest.mark.parametrize("optimiser", [
    {"batch_tokens": 400}, {
        "train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 2,
    },
])
def test_interrupted_within_the_second_epoch_resumes_to_the_same(tmp_path, monkeypatch, optimiser):
    optimiser = optimiser | {"num_train_epochs": 2}
    rows = make_rows(24)
    sizes = {
        "rows": None if "batch_tokens" in optimiser else 5,
        "tokens": optimiser.get("batch_tokens"),
    }
    batches = len(LengthBatches(read_lengths(rows, paired=True), **sizes))
    updates = -(-batches // optimiser.get("gradient_accumulation_steps", 1))
    real = fit_module.RewardTrainer.compute_loss
    seen = []

    def noted(self, model, inputs, *args, **options):
        if self.state.global_step == stop:
            raise KeyboardInterrupt
        seen.append((self.state.global_step, inputs["row_ids"]))
        return real(self, model, inputs, *args, **options)

    monkeypatch.setattr(fit_module.RewardTrainer, "compute_loss", noted)
    stop = None
    whole, lines, _ = run(tmp_path / "whole", optimiser, rows=rows)
    uninterrupted, seen[:] = list(seen), []
    assert len(uninterrupted) == 2 * batches
    assert max(line["step"] for line in lines) == 2 * updates
    for epoch in (0, 1):
        part = uninterrupted[epoch * batches : (epoch + 1) * batches]
        read = [row for _, row_ids in part for row in row_ids]
        assert sorted(read, key=int) == [row["id"] for row in rows]
    assert uninterrupted[:batches] != uninterrupted[batches:]

    stop = updates + 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", optimiser, rows=rows)
    stop, seen[:] = None, []
    again, _, _ = run(tmp_path / "cut", optimiser, rows=rows, resume=True)
    assert seen == [entry for entry in uninterrupted if entry[0] > updates]
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


def test_a_run_says_and_logs_how_much_is_padding(tmp_path, caplog):
    rows = make_rows(20)
    with caplog.at_level(logging.DEBUG, logger="rewardsteer"):
        optimiser = {"batch_tokens": 500, "gradient_accumulation_steps": 100}
        _, lines, _ = run(tmp_path, optimiser, rows=rows, packing="off")
    assert "train: 20 pairs of " in caplog.text
    lengths = read_lengths(rows, paired=True)
    expected = padded_share(lengths, list(LengthBatches(lengths, tokens=500, seed=3)))
    (line,) = [line for line in lines if "loss" in line]
    assert line["padding"] == pytest.approx(expected)
    assert 0 < line["tokens_per_second"] < 1e8


def test_shared_beginnings_are_counted_once_as_read_and_twice_as_rows():
    tokens = torch.tensor([[1, 2, 3, 4, 0], [1, 2, 5, 0, 0]])
    ids, blocks = torch.tensor([[1, 2, 3, 4, 5, 0]]), torch.tensor([[0, 0, 1, 1, 2, -1]])
    batch = PairBatch(
        tokens, (tokens > 0).long(), tokens > 2, tokens > 9, torch.zeros(1),
        packing=Packing(ids, ids, blocks, blocks, tokens),
    )
    interval = MetricAccumulator(torch.device("cpu"))
    for _ in range(2):
        interval.add(batch, {"accuracy": torch.tensor(0.25)}, {}, 0.5)
    interval.add(replace(batch, is_dummy=True), {"accuracy": torch.tensor(1.0)}, {}, 0.5)
    assert interval.state()["tokens"] == [14, 10]
    assert (interval.state()["computed"], interval.state()["padded"]) == (12, 20)
    again = MetricAccumulator(torch.device("cpu"))
    again.restore([interval.state()])
    assert again.state() == interval.state()
    again.restore([interval.state(), interval.state()])
    assert again.state()["tokens"] == [28, 20]
    interval.start()
    figures = interval.figures()
    assert figures["accuracy"] == 0.25
    assert figures["padding"] == pytest.approx(1 - 10 / 12)
    assert interval.state()["sums"] == {}


@pytest.mark.parametrize(("setting", "message"), [
    ("batch_tokens=0", "expected at least 1"),
        ("train_sampling_strategy=longest", "'random' or 'group_by_length'"),
])
def test_wrong_settings_are_refused(setting, message):
    from rewardsteer.configuration import load_config

    with pytest.raises(ConfigError, match=message):
        load_config(OptimiserConfig, {}, [setting])
