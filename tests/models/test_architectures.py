"""Heads on what architectures do differently: scaled and bent logits, no classifier of their own,
backbones under other names."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
)

from benchmarks.tiny import save_tiny, tiny_config, tiny_model
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.errors import CheckpointError
from rewardsteer.models.agreement import same_changes, same_states
from rewardsteer.models.batching import left_pad
from rewardsteer.models.capabilities import supports_prefix_cache
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import RewardProjection, limit_tokens
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.logits import is_neutral
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.start import check_base_model
from rewardsteer.tensors import PairBatch
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
    for head in (VOCABULARY, HeadConfig()):
        check_base_model(base, head)
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


RECURRENT = ("mamba", "mamba2", "falcon_mamba", "rwkv", "jamba", "bamba", "falcon_h1", "lfm2",
             "qwen3_next", "qwen3_5_text", "granitemoehybrid", "zamba2", "nemotron_h", "minimax",
             "recurrent_gemma")
PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz"]


def greedy(model, ids, count):
    """Greedy tokens of one row, every step read whole and without a cache."""
    out = []
    for _ in range(count):
        out.append(int(logits(model, torch.tensor([[*ids, *out]]))[0, -1].argmax()))
        if out[-1] == 0:
            break
    return out


@pytest.mark.parametrize("kind", [*RECURRENT, "llama", "gemma2", "llama4_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_policy_is_decoded_with_is_known_by_trial(kind, dtype):
    model = tiny_model(kind, 80).to(dtype)
    assert supports_prefix_cache(model) == (kind not in RECURRENT)


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "jamba", "lfm2", "qwen3_next", "minimax",
                                  "recurrent_gemma"])
def test_recurrent_policies_are_decoded_right_in_a_batch(kind):
    tokenizer = character_tokenizer(padding_side="left")
    model = tiny_model(kind, len(tokenizer))
    config = DecodingConfig(mode="greedy", max_new_tokens=4, batch_size=3)
    rows = generate(model, tokenizer, PROMPTS, build_method(config), config)
    expected = [greedy(model, tokenizer.encode(prompt), 4) for prompt in PROMPTS]
    assert [list(row.token_ids) for row in rows] == expected


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "lfm2", "recurrent_gemma"])
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
def test_recurrent_reward_models_answer_about_prefixes_and_rows_alike(kind, head, tmp_path):
    base = save_tiny(tmp_path, kind)
    model = RewardModel.from_base(base, HeadConfig(kind=head)).eval()
    scorer = Scorer(model, character_tokenizer(), Template())
    prompts, responses = [[5, 11, 23], [7]], [[13, 17, 3, 9], [19, 29]]
    whole = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
    alone = [scorer.score_ids([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(scorer.score_ids(prompts, responses), alone, rtol=1e-5)
    before = [row[:-1] for row in whole]
    last = torch.tensor([[row[-1], 30] for row in whole])
    found = scorer.candidates(*left_pad(before), last)
    np.testing.assert_allclose(found[:, 0].numpy(), alone, rtol=1e-4, atol=1e-5)
    # Padding on the left, as a training batch may have it.
    ids, mask = left_pad(whole)
    batch = PairBatch(
        ids, mask, mask.bool(), torch.zeros_like(mask).bool(), torch.zeros(2), paired=False
    )
    with torch.no_grad():
        rewards = model(batch).sequence_rewards.numpy()
    np.testing.assert_allclose(rewards, alone, rtol=1e-4, atol=1e-5)


def test_a_sibling_that_leaks_a_little_is_seen():
    """Where layers matter little, leaking is less than what rounding of half precision may be."""
    expected = torch.randn(4, 32)
    leak = 1e-4 * torch.randn(4, 32)
    assert same_states(expected + leak, expected, torch.float32)
    assert not same_changes((expected + leak, expected), (expected, expected), torch.float32)
    assert same_changes((expected, expected), (expected, expected), torch.float32)


def test_a_long_prompt_is_read_before_its_candidates():
    """No mask of prompt × prompt; answers are those of separate reads."""
    model, masks = tiny_model("llama", 80), []
    model.register_forward_pre_hook(
        lambda _, args, options: masks.append(options.get("attention_mask")), with_kwargs=True
    )
    rows = [[(7 * place + row) % 80 for place in range(300 - 20 * row)] for row in range(2)]
    candidates = torch.tensor([[4, 9], [3, 8]])
    reader = PrefixReader(model, tree=True, cached=True)
    found = reader.score_candidates(*left_pad(rows), candidates)
    for row, several, answers in zip(rows, candidates.tolist(), found, strict=True):
        for token, answer in zip(several, answers, strict=True):
            expected = logits(model, torch.tensor([[*row, token]]))[0, -1]
            torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
    assert max(mask.shape[-2] for mask in masks if mask is not None and mask.dim() == 4) == 2
    assert (reader.forwards, reader.tokens) == ([2, 2], [302, 282])


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
def test_an_encoder_is_no_classifier_of_prefixes(kind, tmp_path):
    config = AutoConfig.for_model(
        kind, vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, num_labels=1, pooler_hidden_size=32,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="encoders such as BERT"):
        load_scorer(tmp_path, kind="classifier", device="cpu")


def test_both_maxima_range_over_tokens_that_can_be_generated():
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    layer = RewardProjection(8, len(tokenizer) + 20, bias=False)
    model = SimpleNamespace(get_output_embeddings=lambda: layer)
    hidden = torch.randn(6, 8)
    with torch.no_grad():
        layer.weight[len(tokenizer) :] = 5 * hidden[:1].sign()
    whole = VocabularyHead(layer)
    before = whole.best_next_token(hidden), whole.soft_next_token(hidden, 0.5)
    assert whole.token_count == len(tokenizer) + 20
    limit_tokens(model, tokenizer)
    head = VocabularyHead(layer)
    real = head.next_token(hidden)[:, : len(tokenizer)]
    best, soft = real.max(dim=-1).values, 0.5 * (real / 0.5).exp().mean(dim=-1).log()
    torch.testing.assert_close(head.best_next_token(hidden), best)
    torch.testing.assert_close(head.soft_next_token(hidden, 0.5), soft)
    assert head.token_count == len(tokenizer)
    assert not torch.allclose(before[0], best)
    assert not torch.allclose(before[1], soft)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    limit_tokens(model, tokenizer)
    assert layer.generated == len(tokenizer) - 1
