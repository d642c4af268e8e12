"""Every table at a tiny size: it runs, and both sides compute the same."""

import dataclasses
import gzip
import json

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from benchmarks import (
    bradley_terry,
    constraint,
    contrastive,
    decoding,
    gpu,
    growth,
    guides,
    head,
    prepare,
    scoring,
    shapes,
    shared,
)
from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun
from benchmarks.report import markdown
from benchmarks.shapes import GSM8K_ROWS, HH_ROWS, ULTRAFEEDBACK_ROWS, Synthetic, take
from benchmarks.updates import Training, by_fit, by_trl, check_same_loss
from rewardsteer.data.sets import partial_row
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import CHARACTERS

TINY = Backbone(2, 32, 64)
SHAPE = Synthetic("tiny", 12, 16)


def small(sizes, **changes):
    return dataclasses.replace(sizes, **changes)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """What tables measure in a process of their own runs here, at the sizes given."""

    def install(module, sizes):
        def alone(name, *arguments):
            assert name == module.__name__
            numbers = [int(part) if isinstance(part, int) else part for part in arguments]
            capsys.readouterr()
            module.measure(*numbers, sizes)
            return json.loads(capsys.readouterr().out.splitlines()[-1])

        monkeypatch.setattr(module, "alone", alone)

    return install


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of rows and a tokenizer laid out like the public one."""
    answers = [("It is 4 because 2 + 2 = 4.", True), ("It is 5, I guess so.", False)]
    tables = {
        HH_ROWS.file: [
            {"chosen": f"\n\nHuman: Hi {i}\n\nAssistant: Good day to you.",
             "rejected": f"\n\nHuman: Hi {i}\n\nAssistant: Go away now please."}
            for i in range(9)
        ],
        GSM8K_ROWS.file: [
            {"question": f"What is 2 + 2, take {i}?", "ground_truth": "4", **{
                f"model {n}": {"solution": text, "is_correct": right}
                for n, (text, right) in enumerate(answers)}}
            for i in range(9)
        ],
        scoring.FILE: [
            {"question": f"What is 2 + 2, take {i}?", "answer": "4", "completion": text,
             "is_correct": right, "sample": n}
            for i in range(4) for n, (text, right) in enumerate(answers)
        ],
    }
    for name, rows in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    vocabulary = ["<|endoftext|>", "<|padding|>", "<unk>", *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel(
        {token: index for index, token in enumerate(vocabulary)}, unk_token="<unk>"
    ))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    (tmp_path / shapes.TOKENIZER).parent.mkdir(parents=True)
    (tmp_path / shapes.TOKENIZER).write_bytes(gzip.compress(tokenizer.to_str().encode()))
    monkeypatch.setattr(shapes, "DATA", tmp_path)
    shapes.tokenizer.cache_clear()
    yield tmp_path
    shapes.tokenizer.cache_clear()


def check(rows, count):
    assert len(rows) == count
    for row in rows:
        assert {"case", "ours", "other", "ratio", "unit"} <= row.keys()
        assert all(row[name] >= 0 for name in ("ours", "other", "ratio"))
        if "runs" in row:
            assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert markdown(rows, "other").count("\n") == count + 1


def test_bradley_terry(in_process, data):
    sizes = small(
        bradley_terry.SIZES, backbone=TINY, shapes=(SHAPE, HH_ROWS, GSM8K_ROWS), batch=2,
        updates=2, runs=1,
    )
    in_process(bradley_terry, sizes)
    rows = bradley_terry.run(sizes)
    check(rows, 4)
    assert rows[0]["tokens/s, ours"] > rows[0]["ours"] > 0
    assert rows[-1]["unit"] == "MiB"


def test_fit_and_trl_train_alike():
    training = Training(TINY, take(SHAPE, 8, TINY.vocabulary), 2)
    ours, other = by_fit(training), by_trl(training)
    assert len(ours.ends) == len(other.ends) == 4
    # The same rows in the same order, weights updated alike.
    torch.testing.assert_close(ours.losses, other.losses, atol=1e-5, rtol=0)
    assert len(set(ours.losses)) == 4


def test_other_losses_are_refused():
    training = Training(TINY, take(SHAPE, 4, TINY.vocabulary), 2)
    other = Training(dataclasses.replace(TINY, layers=1), training.pairs, 2)
    with pytest.raises(RuntimeError, match="first losses differ"):
        check_same_loss(by_fit(training), by_fit(other))


def test_growth():
    sizes = small(
        growth.SIZES, backbone=TINY, prompt=8, responses=(4, 8), batches=(1, 2), response=4,
        pairs=2, runs=1,
    )
    rows = growth.run(sizes)
    check(rows, 4)
    assert rows[0]["unit"] == "ms/pair"
    assert rows[0]["ratio"] == pytest.approx(rows[0]["other"] / rows[0]["ours"])


def test_prepare(data, tmp_path, monkeypatch, capsys):
    measured = []

    def alone(name, *arguments):
        assert name == prepare.__name__
        measured.append(arguments)
        capsys.readouterr()
        prepare.measure(*map(str, arguments))
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(prepare, "alone", alone)
    monkeypatch.setenv("PREPARE_PARTS", str(tmp_path / "parts"))
    sizes = small(
        prepare.SIZES, counts=((12, 1),), alone=(("hh", 20),), prompt=6, response=4, words=50,
    )
    rows = prepare.run(sizes)
    check(rows[:6], 6)
    cases = ["generated rows, 12", "HH rows, 12", "HH rows, 20"]
    assert [row["case"] for row in rows[::3]] == cases
    assert [side for side, _ in measured] == ["ours", "trl", "ours", "trl", "ours"]
    assert rows[0]["pairs/CPU s, ours"] > 0
    assert rows[1]["ours"] > 10
    assert markdown(rows, "TRL").count("\n") == 10
    # What was measured is kept; an interrupted run goes on from there.
    assert prepare.run(sizes) == rows
    assert len(measured) == 5


def test_contrastive():
    sizes = small(contrastive.SIZES, backbone=TINY, shape=SHAPE, batch=2, updates=2, runs=1)
    rows = contrastive.run(sizes)
    check(rows, 3)
    assert rows[0]["ratio"] == pytest.approx(rows[0]["ours"] / rows[0]["other"])


def test_constraint(data):
    sizes = small(
        constraint.SIZES, backbone=TINY, shapes=((SHAPE, None), (HH_ROWS, 2)), responses=2,
        micro_batches=(1, 4), runs=1,
    )
    rows = constraint.run(sizes)
    check(rows, 4)
    assert rows[2]["prefixes"] == 4


def test_constraint_has_the_same_gradients_three_ways():
    pairs = take(SHAPE, 3, TINY.vocabulary, longer_than=constraint.START + 1)
    rows = [partial_row(pair, start=constraint.START, count=None, seed=0) for pair in pairs]
    prefixes = constraint.split(rows)
    model = RewardModel(TINY.causal_lm(), HeadConfig(kind="vocabulary"))
    found = []
    for step, parts in (
        (constraint.own_head, [constraint.collate(rows)]),
        (constraint.own_head, constraint.micro_batches(prefixes, 2)),
        (constraint.all_logits, constraint.micro_batches(prefixes, 3)),
    ):
        loss = step(model, len(prefixes), parts)
        found.append((loss, [parameter.grad.clone() for parameter in model.parameters()]))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradients, found[0][1], atol=1e-5, rtol=1e-4)


def test_head(in_process):
    sizes = head.Sizes(positions=8, size=8, vocabularies=(40,), runs=1)
    in_process(head, sizes)
    check(head.run(sizes), 2)


def test_decoding():
    cells = (decoding.Cell(6, 3, 8), decoding.Cell(5, 2, 1, ("none", "args:3"), runs=1))
    rows = decoding.run(decoding.Sizes(TINY, cells))
    check(rows, len(decoding.HEADS) + 2)
    assert all(row["time over floor"] > 0 < row["faster than recomputing"] for row in rows)


def test_guides():
    rows = guides.run(guides.Sizes(TINY, prompt=5, new=3, batches=(1, 2), runs=1))
    check(rows, 2 * (len(guides.GUIDES) - 1))
    assert all(row["over the policy alone"] > 0 for row in rows)
    full = [row["ratio"] for row in rows if row["case"].startswith(guides.FULL)]
    assert full == [1, 1]


def test_shared(in_process):
    sizes = shared.Sizes(TINY, prompt=5, new=2, batch=2, rank=2, runs=1)
    in_process(shared, sizes)
    rows = shared.run(sizes)
    check(rows, 4)
    assert [row["unit"] for row in rows] == ["tokens/s", "MiB"] * 2


def test_scoring(in_process, data):
    backbone = Backbone(1, 16, len(shapes.tokenizer()))
    sizes = scoring.Sizes(backbones=((backbone, 1),), batch=2, grown=(4, 8), runs=1)
    in_process(scoring, sizes)
    rows = scoring.run(sizes)
    check(rows, 5)
    assert [row["case"] for row in rows[3:]] == [
        "peak memory, 4 rows in a file", "peak memory, 8 rows in a file"
    ]


def test_gpu(capsys):
    if not torch.cuda.is_available():
        with pytest.raises(CannotRun, match="no GPU"):
            gpu.run()
    sizes = small(
        gpu.SIZES, backbone=TINY, shape=SHAPE, first_batch=1, last_batch=2, updates=2, runs=1
    )
    sides = []
    for side in bradley_terry.SIDES:
        gpu.measure(side, sizes)
        sides.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    # Ours ran out of memory one batch earlier in the second run.
    rows = gpu.table([sides, [sides[0][:1], sides[1]]])
    check(rows, 2)
    assert rows[0]["case"] == "batch 1"
    assert (rows[1]["ours"], rows[1]["other"]) == (1, 2)


def test_gpu_utilisation_is_of_the_timed_updates(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_peak_operations", lambda: 1.0)
    even = Synthetic("even", 5, 3, deviation=0.0)
    sizes = small(
        gpu.SIZES, backbone=TINY, shape=even, first_batch=2, last_batch=2, updates=3
    )
    gpu.measure("TRL", sizes)
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    weights = gpu.Counted(**dataclasses.asdict(TINY)).weights()
    # Rows of one length: every place that is read holds a token.
    assert found["MFU, %"] == pytest.approx(100 * 6 * weights * found["tokens/s"])


def test_gpu_counts_what_the_layers_read():
    backbone = gpu.Counted(**dataclasses.asdict(TINY))
    by_trl(Training(backbone, take(Synthetic("even", 5, 3, deviation=0.0), 4, 64), 2))
    assert backbone.places == [2 * 2 * 8] * 2
    model = TINY.classifier()
    embeddings = model.get_input_embeddings().weight.numel()
    assert backbone.weights() == sum(p.numel() for p in model.parameters()) - embeddings


@pytest.mark.parametrize("shape", [HH_ROWS, GSM8K_ROWS, ULTRAFEEDBACK_ROWS])
def test_absent_rows_are_told(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "DATA", tmp_path)
    with pytest.raises(CannotRun, match="set DATA"):
        take(shape, 1, 64)


def test_too_few_rows_are_told(data):
    with pytest.raises(CannotRun, match="10 pairs are needed, got 9"):
        take(HH_ROWS, 10, 64)


def test_synthetic_lengths_lie_around_their_means():
    pairs = take(Synthetic("x", 100, 20), 400, 64)
    for side, mean in (("prompt_ids", 100), ("chosen_ids", 20), ("rejected_ids", 20)):
        lengths = [len(getattr(pair, side)) for pair in pairs]
        assert sum(lengths) / len(lengths) == pytest.approx(mean, rel=0.05)
        assert mean / 2 <= min(lengths) < mean < max(lengths) <= 1.5 * mean
    assert {token for pair in pairs for token in pair.prompt_ids} == set(range(3, 64))
    assert take(Synthetic("x", 100, 20), 3, 64) == pairs[:3]
