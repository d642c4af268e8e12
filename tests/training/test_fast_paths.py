"""Twenty updates with every fast path and with none: the same losses."""

import json

import pytest
import torch

from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.models.packing import choose, segments
from rewardsteer.models.packing.segments import segment_attention
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig
from tests.fakes import character_tokenizer, save_tiny
from tests.objectives.test_objectives import rows

OBJECTIVES = {
    "bradley_terry": [{"name": "bradley_terry", "options": {"center_coefficient": 0.1}}],
    "partial": [{"name": "partial"}],
    "farma": [{"name": "bradley_terry"}, {"name": "max_constraint", "weight": 0.5}],
    "goal": [{"name": "bradley_terry"}, {"name": "goal_contrastive", "weight": 0.5}],
}


def losses(base, out, name, head, mode, side="right"):
    torch.manual_seed(0)
    model = RewardModel.from_base(base, HeadConfig(kind=head))
    fit(
        model, character_tokenizer(),
        build_objective([TermConfig.model_validate(term) for term in OBJECTIVES[name]]),
        rows(seed=8, count=40), out, out / "metrics.jsonl",
        optimiser=OptimiserConfig(learning_rate=1e-3, per_device_train_batch_size=8, max_steps=20),
        log=LogConfig(logging_steps=1, progress=False, print_logs=False), packing=mode,
        padding_side=side,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return [line for line in lines if "loss" in line]


def plain_head(monkeypatch):
    """The head as published code reads it: all logits, then one of them."""
    monkeypatch.setattr(
        VocabularyHead, "best_next_token",
        lambda self, hidden: self.next_token(hidden).max(dim=-1).values,
    )
    monkeypatch.setattr(
        VocabularyHead, "rewards_of",
        lambda self, hidden, tokens: self.next_token(hidden).gather(-1, tokens[..., None])[..., 0],
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "form"), [
    ("bradley_terry", "scalar", "mask"), ("bradley_terry", "vocabulary", "segments"),
    ("partial", "scalar", "mask"), ("farma", "vocabulary", "segments"),
    ("goal", "scalar", "segments"),
])
def test_same_loss_curve(tmp_path, monkeypatch, name, head, form):
    base = save_tiny(tmp_path / "base")
    if form == "segments":
        # Calls are too dear for rows as short as these.
        monkeypatch.setattr(choose, "_CALL", 0.0)
    calls = []

    def counted(*states):
        calls.append(states)
        return segment_attention(*states)

    monkeypatch.setattr(segments, "segment_attention", counted)
    fast = losses(base, tmp_path / "fast", name, head, "auto")
    # The capability check before training calls it 16 times; 20 updates do so in each layer.
    assert (len(calls) > 16 + 20) == (form == "segments")
    assert all(line["tokens_saved"] > 0 for line in fast)
    plain_head(monkeypatch)
    # Left padding needs the mask, so nothing is left of the unmasked path either.
    slow = losses(base, tmp_path / "slow", name, head, "off", "left")
    assert all(line["tokens_saved"] == 0 for line in slow)
    assert len(fast) == len(slow) == 20
    ours, theirs = ([line["loss"] for line in one] for one in (fast, slow))
    assert ours == pytest.approx(theirs, abs=2e-4, rel=2e-4)
    assert len(set(ours)) == 20


