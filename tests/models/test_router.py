"""The loss that keeps experts busy is the library's, padded and packed."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.tiny import save_tiny, tiny_model
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.router import router_coefficient
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import without_dropout
from rewardsteer.training.run import train
from tests.objectives.test_objectives import rows
from tests.training.engines import make_world, settings

KINDS = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "qwen3_next", "phimoe")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
def test_router_loss_is_the_librarys(kind, head, tmp_path):
    base = save_tiny(tmp_path, kind)
    model = RewardModel.from_base(base, HeadConfig(kind=head)).train()
    for right in (True, False):
        batch = to_batch(PairCollator(2, "right" if right else "left")(rows(seed=3, count=3)))
        output = model(batch)
        plain = AutoModelForCausalLM.from_pretrained(base).train()
        with torch.no_grad():
            expected = plain(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                position_ids=(batch.attention_mask.cumsum(1) - 1).clamp(min=0),
                output_router_logits=True, use_cache=False,
            ).aux_loss
        torch.testing.assert_close(output.router_loss.detach(), expected, rtol=1e-4, atol=1e-5)
        assert router_coefficient(model.backbone) == plain.config.router_aux_loss_coef
    output.router_loss.backward()
    routers = [p.grad for n, p in model.named_parameters() if "gate" in n or "router" in n]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in routers)
    with torch.no_grad():
        assert model.eval()(batch).router_loss is None


def test_packed_rows_count_every_token_that_is_read(tmp_path):
    model = RewardModel.from_base(save_tiny(tmp_path, "mixtral"), HeadConfig()).train()
    batch = to_batch(PairCollator(2, packing=PackingCosts(0.0))(rows(seed=4, count=4)))
    assert batch.packing is not None
    found = model(batch).router_loss
    again = model(batch)
    assert found.isfinite()
    torch.testing.assert_close(found, again.router_loss)
    empty = batch.packing.blocks < 0
    batch.packing.input_ids[empty] = 7
    torch.testing.assert_close(model(batch).router_loss, found)


def test_a_model_without_experts_has_none(tmp_path):
    model = RewardModel.from_base(save_tiny(tmp_path, "llama"), HeadConfig()).train()
    batch = to_batch(PairCollator(2)(rows(seed=3, count=3)))
    assert model(batch).router_loss is None
    assert router_coefficient(model.backbone) == 0


@pytest.mark.parametrize(("kind", "rates"), [
    ("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
    ("llama", {"attention_dropout": 0.5}), ("opt", {"dropout": 0.5, "attention_dropout": 0.5}),
    ("bloom", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
    ("gpt_neox", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
])
def test_without_dropout_training_reads_as_evaluation(kind, rates):
    model = tiny_model(kind, 80, **rates)
    ids = torch.tensor([[5, 11, 23, 7, 2, 13, 40]] * 2)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        noisy = model.train()(input_ids=ids).logits
        without_dropout(model)
        found = model.train()(input_ids=ids).logits
    assert not torch.allclose(noisy, expected)
    torch.testing.assert_close(found, expected)


def test_training_logs_the_router_loss_and_drops_nothing_out(tmp_path):
    world = make_world(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(world / "base")
    tiny_model("mixtral", len(tokenizer), attention_dropout=0.5).save_pretrained(world / "base")
    changes = {"optimiser": {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 2,
    }}
    curves = []
    for name, packing in (("packed", "auto"), ("again", "auto"), ("padded", "off")):
        config = TrainConfig(**settings(world, "bradley_terry", 1, packing=packing, **changes))
        assert config.disable_dropout
        train(config, tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        curves.append([line for line in map(json.loads, lines) if "loss" in line])
    for line in curves[0]:
        # At least the number of experts a token goes to; 2 where all are as busy.
        assert 1.5 < line["router_aux_loss"] < 4
    assert [line["loss"] for line in curves[0]] == [line["loss"] for line in curves[1]]
    # Prompts that two responses share count once when packed, so the loss is another by little.
    for packed, padded in zip(curves[0], curves[2], strict=True):
        assert packed["loss"] == pytest.approx(padded["loss"], abs=1e-3)
