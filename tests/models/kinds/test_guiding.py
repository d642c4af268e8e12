"""Published reward models guide as the folders that are made of them do."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.models.kinds import load_scorer
from tests.chat import save_policy
from tests.models.kinds.published import SIZE, publish, random
from tests.models.kinds.test_language_models import save_encoder

HEADS = {
    "value_head": ({"v_head.summary.weight": random(1, SIZE), "v_head.summary.bias": random(1)},
                   {"architectures": ["LlamaForCausalLM"]}, ["--method", "args"]),
    "attributes": ({"score.weight": random(3, SIZE)},
                   {"architectures": ["LlamaForSequenceClassification"],
                    "id2label": {"0": "a", "1": "b", "2": "c"}},
                   ["--method", "args", "--kind-option", "attribute=b"]),
    "farma": ({}, {}, ["--method", "farma", "--kind", "farma"]),
    "best of n": ({"value_head.weight": random(1, SIZE)}, {"architectures": ["RewardModel"]},
                  ["--n", "3"]),
}


def generate(policy, folder, output, *more):
    return CliRunner().invoke(app, [
        "generate", "--model", str(policy), "--reward-model", str(folder), "--prompt", "What?",
        "--prompt", "me", "--max-new-tokens", "6", "--device", "cpu", "--output", str(output),
        "--seed", "3", *more,
    ])


@pytest.mark.parametrize("form", HEADS)
def test_published_folders_guide_as_imported_ones(tmp_path, form):
    policy = save_policy(tmp_path / "policy", "gemma", seed=5)
    head, config, words = HEADS[form]
    folder = publish(
        tmp_path / "m", head, family="gemma", keep_lm_head=form == "farma", **config
    )
    done = generate(policy, folder, tmp_path / "direct.jsonl", *words)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "direct.jsonl").read_text().splitlines()]
    if form == "best of n":
        assert all(row["method"] == "best_of_n" for row in rows)
    # What the kind needs is for the import; its folder says it by itself.
    of_kind = [] if form == "best of n" else words[2:]
    imported = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "rm"), *of_kind])
    assert imported.exit_code == 0, imported.output
    words = ["--method", "best_of_n", *words] if form == "best of n" else words[:2]
    again = generate(policy, tmp_path / "rm", tmp_path / "again.jsonl", *words)
    assert again.exit_code == 0, again.output
    others = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == [row["completion"] for row in others]


def test_engines_that_read_folders_refuse_others(tmp_path):
    policy = save_policy(tmp_path / "policy", "llama3")
    head, config, _ = HEADS["value_head"]
    folder = publish(tmp_path / "m", head, **config)
    done = generate(policy, folder, tmp_path / "a.jsonl", "--method", "args", "--share-backbone")
    assert done.exit_code == 2
    assert "make such a folder with 'rewardsteer import'" in " ".join(done.stderr.split())


def test_encoders_choose_among_responses_and_guide_none(tmp_path):
    """Strategies judge texts; a guide needs rewards per token."""
    policy = save_policy(tmp_path / "policy", "gemma", seed=5)
    folder = save_encoder(tmp_path / "m", "bert")
    done = generate(policy, folder, tmp_path / "a.jsonl", "--n", "4")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    scorer = load_scorer(folder, device="cpu")
    for row in rows:
        assert row["method"] == "best_of_n"
        [reward] = scorer.score([row["prompt"]], [row["completion"]])
        assert row["reward"] == pytest.approx(reward, abs=1e-4)
    refused = generate(policy, folder, tmp_path / "b.jsonl", "--method", "args")
    assert refused.exit_code == 2
    assert "texts alone" in " ".join(refused.stderr.split())
