"""Methods × prompts on tiny models: figures, resume, refusals; preference accuracy."""

import json

import pytest

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.evaluation.generation import Entry, Judge, compare, read_records
from rewardsteer.evaluation.preference import evaluate_preference
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.fakes import tiny_causal_lm


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tokenizer = build_tokenizer()
    policy = tiny_causal_lm(vocab_size=len(tokenizer))
    policy.save_pretrained(folder / "base")
    scorers = {}
    for kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        model = RewardModel.from_base(folder / "base", head)
        template = Template().model_dump(mode="json")
        card = CheckpointCard(head=head, template=template)
        model.save_pretrained(folder / kind, tokenizer, card)
        scorers[kind] = Scorer.load(folder / kind)
    return folder, policy, tokenizer, scorers


def entries(scorers):
    options = {"max_new_tokens": 6, "batch_size": 3, "top_k": 4}
    return [
        Entry("none", DecodingConfig(method="none", **options)),
        Entry("farma w=1", DecodingConfig(method="farma", **options), scorers["vocabulary"]),
        Entry("args", DecodingConfig(method="args", **options), scorers["scalar"]),
    ]


REQUESTS = [Request(id=str(i), prompt=f"{i}+{i}=") for i in range(7)]


def test_figures_and_costs(world, tmp_path):
    _, policy, tokenizer, scorers = world
    judge = Judge(scorers["scalar"], {"ones": lambda g: g.completion.count("1")})
    summary = compare(entries(scorers), policy, tokenizer, REQUESTS, judge, tmp_path)
    assert list(summary) == ["none", "farma w=1", "args"]
    assert json.loads((tmp_path / "summary.json").read_text())["methods"] == summary
    assert summary["none"]["reward_gain"] == 0.0
    assert summary["none"]["rm_calls_per_token"] == 0
    assert summary["farma w=1"]["rm_calls_per_token"] == 1
    assert summary["args"]["rm_calls_per_token"] == 4
    records = read_records(tmp_path / "args.jsonl")
    rewards = scorers["scalar"].score(
        [r.generation.prompt for r in records.values()],
        [r.generation.completion for r in records.values()],
    )
    assert summary["args"]["reward"] == pytest.approx(rewards.mean(), abs=1e-6)
    assert "ones_stderr" in summary["args"]


def test_resume_after_a_kill_gives_the_same_records(world, tmp_path):
    _, policy, tokenizer, scorers = world
    judge = Judge(scorers["scalar"])
    compare(entries(scorers), policy, tokenizer, REQUESTS, judge, tmp_path / "whole")
    compare(entries(scorers)[:1], policy, tokenizer, REQUESTS, judge, tmp_path / "cut")
    place = tmp_path / "cut" / "none.jsonl"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(lines[:2]) + lines[2][:40])  # torn in the third line
    compare(entries(scorers), policy, tokenizer, REQUESTS, judge, tmp_path / "cut")
    for name in ("none", "farma_w=1", "args"):
        whole = read_records(tmp_path / "whole" / f"{name}.jsonl")
        cut = read_records(tmp_path / "cut" / f"{name}.jsonl")
        assert whole.keys() == cut.keys()
        for key, record in whole.items():
            assert record.generation.token_ids == cut[key].generation.token_ids
            assert record.metrics == pytest.approx(cut[key].metrics, abs=1e-5)


def test_refusals(world, tmp_path):
    _, policy, tokenizer, scorers = world
    judge = Judge(scorers["scalar"])
    compare(entries(scorers)[:1], policy, tokenizer, REQUESTS, judge, tmp_path)
    with pytest.raises(DataError, match="other prompts"):
        compare(entries(scorers)[:1], policy, tokenizer, REQUESTS[:2], judge, tmp_path)
    with pytest.raises(DataError, match="labels"):
        compare(entries(scorers)[:1] * 2, policy, tokenizer, REQUESTS, judge, tmp_path / "x")
    with pytest.raises(MismatchError, match="judge"):
        compare(
            entries(scorers)[:1], policy, tokenizer, REQUESTS, Judge(scorers["vocabulary"]),
            tmp_path / "x",
        )


def test_preference_accuracy_counts_by_hand(world, tmp_path):
    _, _, tokenizer, scorers = world
    source = {"name": "arithmetic", "options": {"rows": 40}}
    prepare(DataConfig(source=source, drop_overlap=False), tokenizer, tmp_path / "data")
    figures = evaluate_preference(scorers["scalar"], tmp_path / "data")
    from rewardsteer.data.store import load_set

    rows = load_set(tmp_path / "data", "test", "full")
    right = 0
    for row in rows:
        texts = [row["chosen"], row["rejected"]]
        chosen, rejected = scorers["scalar"].score([row["prompt"]] * 2, texts)
        right += chosen > rejected
    assert figures["all"]["accuracy"] == pytest.approx(right / len(rows))
    assert figures["all"]["accuracy_low"] < figures["all"]["accuracy"]
    source["options"]["rows"] = 5
    other = DataConfig(source=source, template={"response": " {response}"}, drop_overlap=False)
    spaced = build_tokenizer()
    spaced.add_tokens([" "])
    prepare(other, spaced, tmp_path / "other")
    with pytest.raises(MismatchError, match="another response template"):
        evaluate_preference(scorers["scalar"], tmp_path / "other")
