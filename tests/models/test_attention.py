"""Caps of attention scores, which transformers' default attention leaves out (Gemma 2)."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
)

from rewardsteer import RewardModel, Steerer
from rewardsteer.decoding.policy import load_policy
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel as Trained
from tests.chat import chat_tokenizer
from tests.fakes import spread_weights
from tests.models.kinds.published import conversation

ROW = ("What is 7+8?", "It is 15.")


def save(folder, kind):
    """A cap so low that it changes every reward."""
    tokenizer = chat_tokenizer("gemma")
    torch.manual_seed(0)
    model = kind(Gemma2Config(
        vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16,
        max_position_embeddings=256, num_labels=1, attn_logit_softcapping=0.5,
        pad_token_id=tokenizer.pad_token_id,
    )).eval()
    spread_weights(model, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_transformers(folder, attention):
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention
    )
    ids = chat_tokenizer("gemma").apply_chat_template(conversation(*ROW), return_dict=False)
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits[0, 0])


@pytest.mark.parametrize("options", [{}, {"kind": "value_head"}])
def test_rewards_have_the_cap(tmp_path, options):
    folder = save(tmp_path / "m", Gemma2ForSequenceClassification)
    capped, uncapped = (by_transformers(folder, one) for one in ("eager", "sdpa"))
    assert abs(capped - uncapped) > 0.1
    rm = RewardModel.from_pretrained(folder, device="cpu", **options)
    assert rm.score(*ROW) == pytest.approx(capped, abs=1e-4)


def test_another_attention_is_kept_and_warned_of(tmp_path, caplog):
    folder = save(tmp_path / "m", Gemma2ForSequenceClassification)
    rm = RewardModel.from_pretrained(folder, device="cpu", attn_implementation="sdpa")
    assert rm.score(*ROW) == pytest.approx(by_transformers(folder, "sdpa"), abs=1e-4)
    assert "caps attention scores" in caplog.text
    caplog.clear()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    RewardModel.from_pretrained(model, tokenizer=chat_tokenizer("gemma"))
    assert "caps attention scores" in caplog.text


def test_policies_and_training_have_the_cap(tmp_path, caplog):
    folder = save(tmp_path / "m", Gemma2ForCausalLM)
    assert load_policy(folder, device="cpu").config._attn_implementation == "eager"
    trained = Trained.from_base(folder, HeadConfig())
    assert trained.backbone.config._attn_implementation == "eager"
    model = AutoModelForCausalLM.from_pretrained(folder)
    Steerer(model, method="none", tokenizer=chat_tokenizer("gemma"))
    assert "caps attention scores" in caplog.text
