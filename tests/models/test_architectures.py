"""Heads on what architectures do differently: scaled and bent logits, no classifier of their own,
backbones under other names."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
)

from benchmarks.tiny import save_tiny, tiny_config
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.logits import is_neutral
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import character_tokenizer

IDS = torch.tensor([[5, 11, 23, 7, 2, 13, 40], [31, 3, 37, 41, 43, 17, 9]])
VOCABULARY = HeadConfig(kind="vocabulary")
SCALED = ("cohere", "cohere2", "granite", "granitemoe", "granitemoehybrid", "falcon_h1",
          "hyperclovax", "minicpm3")
CAPPED = ("gemma2", "gemma3n_text", "gemma4_text", "nanochat", "vaultgemma", "recurrent_gemma")
OTHERWISE = ("llama4_text", "mamba", "rwkv", "olmoe", "qwen3_next")


@torch.no_grad()
def rewards(model, ids=IDS):
    return model.head.next_token(model.hidden_states(ids, None))


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("kind", SCALED + CAPPED + OTHERWISE)
def test_untrained_rewards_are_logits_and_plain_transformers_reads_them(kind, tmp_path):
    base = save_tiny(tmp_path / "base", kind)
    policy = AutoModelForCausalLM.from_pretrained(base).eval()
    model = RewardModel.from_base(base, VOCABULARY).eval()
    before, ours = logits(policy), rewards(model)
    if kind in CAPPED:
        # The cap goes, the order stays; the settings make it bite here.
        cap = getattr(policy.config, "logits_soft_cap", None)
        cap = cap or policy.config.final_logit_softcapping
        before, bent = before / cap, (ours / cap).tanh()
        torch.testing.assert_close(bent, before, atol=1e-5, rtol=1e-4)
    else:
        torch.testing.assert_close(ours, before, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        model.head.projection.weight.add_(torch.randn_like(model.head.projection.weight))
    trained = rewards(model)
    torch.testing.assert_close(logits(model.carrier), trained, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "rm", character_tokenizer(), CheckpointCard(head=VOCABULARY))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "rm").eval()
    torch.testing.assert_close(logits(plain), trained, atol=1e-4, rtol=1e-4)
    again = RewardModel.from_pretrained(tmp_path / "rm")
    torch.testing.assert_close(rewards(again), trained, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "neutral"), [("llama", True), ("granite", False),
                                               ("gemma2", False), ("recurrent_gemma", False)])
def test_settings_that_change_logits_are_known(kind, neutral, tmp_path):
    config = AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path, kind)).config
    assert is_neutral(config) is neutral


def test_a_folder_that_plain_transformers_reads_otherwise_is_refused(tmp_path):
    base = save_tiny(tmp_path / "base", "granite")
    model = RewardModel.from_base(base, VOCABULARY)
    model.carrier.config.logits_scaling = 3.0
    with pytest.raises(CheckpointError, match="Plain transformers would read other rewards"):
        model.save_pretrained(
            tmp_path / "rm", character_tokenizer(), CheckpointCard(head=VOCABULARY)
        )
    assert not (tmp_path / "rm").exists()


@pytest.mark.parametrize("kind", ["cohere", "falcon_h1", "llama4_text", "mamba", "olmoe", "rwkv",
                                  "recurrent_gemma"])
def test_a_scalar_head_where_transformers_has_no_classifier(kind, tmp_path):
    base = save_tiny(tmp_path / "base", kind)
    model = RewardModel.from_base(base, HeadConfig()).eval()
    head = model.head
    with torch.no_grad():
        states = AutoModelForCausalLM.from_pretrained(base).eval()
        states = states(input_ids=IDS, output_hidden_states=True, use_cache=False).hidden_states[-1]
        hidden = model.hidden_states(IDS, None)
        torch.testing.assert_close(hidden, states, atol=1e-5, rtol=1e-4)
        ours = head.values(hidden)[:, -1]
        model.save_pretrained(tmp_path / "rm", character_tokenizer(), CheckpointCard(
            head=HeadConfig()
        ))
        again = RewardModel.from_pretrained(tmp_path / "rm")
        theirs = again.head.values(again.hidden_states(IDS, None))[:, -1]
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
        # In this process transformers knows the class, in others the backbone and the layer.
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
        torch.testing.assert_close(plain(input_ids=IDS).logits[:, 0], ours, atol=1e-5, rtol=1e-4)
        backbone = AutoModel.from_pretrained(tmp_path / "rm").eval()
        weight = load_file(tmp_path / "rm" / "model.safetensors")["score.weight"]
        found = backbone(input_ids=IDS, use_cache=False).last_hidden_state[:, -1] @ weight[0]
        torch.testing.assert_close(found, ours, atol=1e-5, rtol=1e-4)
    architecture = json.loads((tmp_path / "rm" / "config.json").read_text())["architectures"][0]
    assert architecture.endswith("ForSequenceClassification")


def test_weights_in_a_pickle_are_refused_with_the_way_out(tmp_path):
    model = LlamaForSequenceClassification(tiny_config("llama", 80, num_labels=1))
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*run code.*save_pretrained"):
        RewardModel.from_pretrained(tmp_path)
