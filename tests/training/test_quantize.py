"""QLoRA: adapters on a rounded backbone, and a plain folder at the end that says the same."""

import json
import sys

import pytest
import torch

from rewardsteer.configuration import load_config
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.data.store import load_set
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import ensure_padding_token, load_tokenizer
from rewardsteer.models.packing.choose import choose_packing
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import build
from rewardsteer.training.run import train
from tests.training.engines import make_world, settings

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(("objective", "kind"), [
    ("bradley_terry", "nf4"), ("bradley_terry | max_constraint", "nf4"),
])
def test_rounded_backbone_trains_and_is_saved_as_plain_weights(world, tmp_path, objective, kind):
    config = TrainConfig.model_validate(settings(
        world, objective, 1, lora={"rank": 2}, quantize={"kind": kind},
        optimiser={"learning_rate": 1e-2},
    ))
    folder = train(config, tmp_path / "run")
    tokenizer = load_tokenizer(world / "base")
    ensure_padding_token(tokenizer)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    weights = tmp_path / "run" / state[-1]["folder"] / "weights.safetensors"
    trained = build(config, tokenizer, weights).eval()
    rounded = [m for m in trained.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(rounded) == 14  # two layers of seven; not the head
    rows = load_set(world / "data", "test", "full")
    batch = to_batch(PairCollator(tokenizer.pad_token_id)(list(rows)))
    saved = RewardModel.from_pretrained(folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    with torch.no_grad():
        found = saved(batch).sequence_rewards
        torch.testing.assert_close(found, trained(batch).sequence_rewards, atol=1e-5, rtol=1e-5)
        untrained = build(config, tokenizer).eval()(batch).sequence_rewards
    assert (found - untrained).abs().max() > 1e-2


@pytest.mark.parametrize(("precision", "packed"), [("bf16", True), ("fp32", False)])
def test_rounding_of_four_bit_products_is_no_reason_not_to_pack(world, precision, packed):
    """The base is float32 and its products are bfloat16. On a GPU they differ by rounding between
    batches of different shapes; the hook stands for that."""
    config = TrainConfig.model_validate(settings(
        world, "bradley_terry", 1, lora={"rank": 2}, quantize={"kind": "nf4"},
        optimiser={"precision": precision},
    ))
    model = build(config, load_tokenizer(world / "base"))
    assert model.backbone.dtype == torch.float32

    def rounded(module, given, found):
        draws = torch.Generator().manual_seed(found.numel())
        return found * (1 + 2**-12 * torch.randn(found.shape, generator=draws))

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.register_forward_hook(rounded)
    assert (choose_packing(model, 20) is not None) == packed


def test_what_cannot_be_is_refused(world, monkeypatch, tmp_path):
    values = settings(world, "bradley_terry", 1)
    with pytest.raises(ConfigError, match="quantize freezes the backbone, so it needs lora"):
        load_config(TrainConfig, values | {"quantize": {"kind": "nf4"}})
    with pytest.raises(ConfigError, match=r"'quantize\.kind' is wrong"):
        load_config(TrainConfig, values | {"lora": {}, "quantize": {"kind": "nf5"}})
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = load_config(TrainConfig, values | {"lora": {}, "quantize": {}})
    with pytest.raises(ConfigError, match=r"pip install 'rewardsteer\[quantize\]'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "expected"), [
    ("flash", "flash_attention_2"), ("flex", "flex_attention"), ("sdpa", "sdpa"),
    ("flash_attention_3", "flash_attention_3"), (None, None),
])
def test_attention_has_short_names(world, given, expected):
    values = settings(world, "bradley_terry", 1, attn_implementation=given)
    config = load_config(TrainConfig, values)
    assert config.attn_implementation == expected
