"""Every objective on packed rows against the same rows padded: loss and gradients."""

import logging
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import open_vocabulary
from rewardsteer.models.packing import segments
from rewardsteer.models.packing.choose import (
    attention_costs,
    choose_packing,
    packed_attention,
    why_no_segments,
    why_not_packable,
)
from rewardsteer.models.packing.mask import block_mask
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.models.packing.segments import segments_read
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.tensors import Packing
from rewardsteer.training.config import TermConfig
from tests.fakes import spread_weights, tiny_causal_lm
from tests.objectives.test_objectives import gradients, rows

# The two forms of packed rows, each where it costs least: under a mask, and segment by segment.
MASKED, SEGMENTED = PackingCosts(0.0), PackingCosts(1.0, 0.0)
FORMS = {"mask": MASKED, "segments": SEGMENTED}

OBJECTIVES = {
    "bradley_terry": [{"name": "bradley_terry", "options": {"center_coefficient": 0.1}}],
    "partial": [{"name": "partial"}],
    "max_constraint": [{"name": "max_constraint"}],
    "both": [{"name": "bradley_terry"}, {"name": "max_constraint", "weight": 0.5}],
    "contrastive": [{"name": "bradley_terry"}, {"name": "goal_contrastive", "weight": 0.5}],
    "future": [{"name": "goal_contrastive", "options": {"form": "future"}}],
    "published": [{"name": "goal_contrastive", "options": {"form": "published"}}],
}


def build(kind, head, dtype=torch.float64, attention="sdpa"):
    base = tiny_causal_lm(kind)
    config = base.config
    if head == "scalar":
        config.num_labels = 1
        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_config(config)
        spread_weights(base, 0.12)
        model = RewardModel(base, HeadConfig())
    else:
        settings = HeadConfig(kind="vocabulary")
        model = RewardModel(open_vocabulary(base, settings), settings)
    model.base.set_attn_implementation(attention)
    return model.to(dtype).eval()


def objective_of(name):
    return build_objective([TermConfig.model_validate(term) for term in OBJECTIVES[name]])


def batch_of(data, side, objective, packing):
    collate = PairCollator(2, side, objective.rows == "pairs", objective.prefixes, packing)
    return to_batch(collate(data))


def is_segmented(batch):
    return batch.packing is not None and batch.packing.segments is not None


def loss_and_gradients(model, objective, batch):
    with packed_attention(model, SEGMENTED if is_segmented(batch) else None):
        loss = objective(model(batch, objective.needs), batch).loss
        return loss.detach(), gradients(model, loss)


def assert_equal(ours, theirs, exact):
    torch.testing.assert_close(ours[0], theirs[0], atol=exact, rtol=exact)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        torch.testing.assert_close(gradient, theirs[1][name], atol=exact, rtol=exact, msg=name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_rows_give_the_same_loss_and_gradients(name, kind, side, form):
    objective = objective_of(name)
    model = build(kind, "vocabulary" if "constraint" in name or name == "both" else "scalar")
    data = rows(seed=3, count=9, longest=12)
    padded = batch_of(data, side, objective, None)
    packed = batch_of(data, side, objective, FORMS[form])
    assert is_segmented(packed) == (form == "segments")
    # Llama's norms compute in float32 whatever the weights are.
    exact = 1e-6 if kind == "llama" else 1e-8
    assert_equal(
        loss_and_gradients(model, objective, packed),
        loss_and_gradients(model, objective, padded), exact,
    )


@pytest.mark.parametrize(("attention", "form"), [
    ("sdpa", MASKED), ("eager", MASKED), ("sdpa", SEGMENTED),
])
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
def test_float32(head, attention, form):
    objective, model = objective_of("bradley_terry"), build("gpt2", head, torch.float32, attention)
    data = rows(seed=6, count=6)
    packed, padded = (batch_of(data, "right", objective, packing) for packing in (form, None))
    assert is_segmented(packed) == (form is SEGMENTED)
    assert_equal(
        loss_and_gradients(model, objective, packed),
        loss_and_gradients(model, objective, padded), 1e-5,
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(["right", "left"]), st.integers(1, 6),
    st.sampled_from(list(FORMS)),
)
def test_random_lengths(seed, side, count, form):
    objective, model = objective_of("both"), build("gpt_neox", "vocabulary")
    data = rows(seed, count=count, longest=6)
    packed, padded = (batch_of(data, side, objective, packing) for packing in (FORMS[form], None))
    with segments_read(model):
        ours, theirs = (
            objective(model(one, objective.needs), one).loss for one in (packed, padded)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "mistral"])
def test_segments_with_shared_heads_norms_and_windows(kind):
    """In training mode, with checkpoints of activations, forward and backward."""
    settings = HeadConfig(kind="vocabulary")
    model = RewardModel(open_vocabulary(tiny_causal_lm(kind), settings), settings).double().train()
    objective, data = objective_of("both"), rows(seed=3, count=9, longest=12)
    padded = loss_and_gradients(model, objective, batch_of(data, "right", objective, None))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = loss_and_gradients(model, objective, batch_of(data, "right", objective, SEGMENTED))
    # Their norms compute in float32 whatever the weights are.
    assert_equal(packed, padded, 1e-6)


def test_long_segments_are_computed_in_runs(monkeypatch):
    monkeypatch.setattr(segments, "_QUERIES", 3)
    objective, model = objective_of("both"), build("gpt_neox", "vocabulary")
    data = rows(seed=3, count=9, longest=30)
    packed, padded = (batch_of(data, "right", objective, form) for form in (SEGMENTED, None))
    assert (packed.packing.segments[:, 2] - packed.packing.segments[:, 1]).max() > 6
    assert_equal(
        loss_and_gradients(model, objective, packed),
        loss_and_gradients(model, objective, padded), 1e-8,
    )


def test_segments_under_autocast():
    objective, model = objective_of("bradley_terry"), build("qwen3", "scalar", torch.float32)
    data = rows(seed=6, count=6)
    with torch.autocast("cpu", torch.bfloat16):
        packed, padded = (
            loss_and_gradients(model, objective, batch_of(data, "right", objective, packing))
            for packing in (SEGMENTED, None)
        )
    torch.testing.assert_close(packed[0], padded[0], atol=2e-2, rtol=2e-2)
    for name, gradient in packed[1].items():
        far = (gradient - padded[1][name]).norm() / padded[1][name].norm()
        assert far < 0.1, name


def test_flex_attention_takes_the_same_mask():
    """Forward alone: torch has no backward of it on a CPU."""
    objective = objective_of("bradley_terry")
    data = rows(seed=6, count=4)
    packed = batch_of(data, "right", objective, MASKED)
    plain = build("llama", "scalar", torch.float32)
    flex = build("llama", "scalar", torch.float32, "flex_attention")
    flex.load_state_dict(plain.state_dict())
    with torch.no_grad():
        ours, theirs = (model(packed).sequence_rewards for model in (flex, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_forms_of_the_mask_say_the_same():
    fields = MASKED.pack(
        [[1, 2, 3], [1, 4], [5, 6]], [[0, 1], [2]], starts=[0, 0, 0], width=3, padding=0
    )
    packing = Packing(**fields)
    allowed = block_mask(packing, "sdpa", torch.float32)
    added = block_mask(packing, "eager", torch.float32)
    assert torch.equal(allowed, added == 0)
    assert added.min() == torch.finfo(torch.float32).min
    # [1, 2, 3] and 4 share the 1; 5, 6 see nothing of them.
    assert allowed[0, 0].long().tolist() == [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1],
    ]



def other(kind, **options):
    config = AutoConfig.for_model(kind, vocab_size=97, num_labels=1, pad_token_id=0, **options)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    spread_weights(base, 0.15)
    settings = HeadConfig(kind="vocabulary")
    return RewardModel(open_vocabulary(base, settings), settings).train()


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(("model", "reason"), [
    (lambda: other("mamba", hidden_size=32, num_hidden_layers=2), "no block mask|no positions"),
    (lambda: other("bloom", hidden_size=32, n_layer=2, n_head=2), "takes no positions"),
    (lambda: other("falcon", alibi=True, **SMALL), "refuses the block mask"),
    (lambda: other("mistral", intermediate_size=64, num_key_value_heads=1, sliding_window=8,
                   **SMALL), "attention window of 8 tokens is shorter"),
    (lambda: other("gpt_neo", hidden_size=32, num_layers=2, num_heads=2, window_size=256,
                   attention_types=[[["global", "local"], 1]]), "window in columns"),
    (lambda: other("jamba", intermediate_size=64, num_key_value_heads=1, attn_layer_period=2,
                   attn_layer_offset=1, mamba_d_state=4, **SMALL | {"num_hidden_layers": 4}),
     "other states"),
])
def test_backbones_for_which_it_does_not_hold_fall_back_with_a_reason(model, reason, caplog):
    built = model()
    with caplog.at_level(logging.DEBUG):
        assert choose_packing(built, longest=9) is None
    assert "rows are padded, not packed: " in caplog.text
    assert re.search(reason, caplog.text)
    assert built.training


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma2", "mistral"])
def test_backbones_for_which_it_holds(kind):
    settings = HeadConfig(kind="vocabulary")
    model = RewardModel(open_vocabulary(tiny_causal_lm(kind), settings), settings)
    assert why_not_packable(model, longest=100) is None
    assert why_no_segments(model) is None
    costs = attention_costs(model, segments=True)
    assert 0 < costs.per_query_key < 1 < costs.per_kernel_call
    assert attention_costs(model).per_kernel_call is None


def test_dropout_of_attention_weights_needs_the_mask(caplog):
    model = other("gpt2", n_embd=32, n_layer=2, n_head=2, attn_pdrop=0.1)
    with caplog.at_level(logging.DEBUG):
        costs = choose_packing(model, longest=9)
    assert costs.per_kernel_call is None
    assert "not segment by segment: GPT2Model refuses the segments" in caplog.text
    assert "dropout of attention weights" in caplog.text
    assert model.training
    assert model.backbone.config._attn_implementation == "sdpa"


def test_an_attention_that_was_chosen_is_kept(caplog):
    model = build("llama", "scalar", torch.float32, "eager")
    with caplog.at_level(logging.DEBUG):
        assert choose_packing(model, longest=9).per_kernel_call is None
    assert "attention 'eager' was chosen" in caplog.text
