"""Training from a base saved in bfloat16: what is trained moves, what is saved keeps its type."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from rewardsteer import devices
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training import precision
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import build
from rewardsteer.training.precision import saved_dtype, usable_attention
from rewardsteer.training.run import train
from rewardsteer.training.shared_config import OptimiserConfig
from tests.fakes import character_tokenizer, spread_weights, tiny_causal_lm
from tests.objectives.test_objectives import rows
from tests.training.engines import make_world, settings

WHOLE, LORA, QLORA = {}, {"lora": {}}, {"lora": {}, "quantize": {"kind": "nf4"}}
HEADS = {"linear": {}, "mlp": {"layers": "mlp"}, "vocabulary": {"kind": "vocabulary"}}


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def narrow(request, tmp_path_factory):
    """A base model in a narrow type, with weights of usual size."""
    folder, tokenizer = tmp_path_factory.mktemp(request.param), character_tokenizer()
    torch.manual_seed(0)
    model = tiny_causal_lm("llama", vocab_size=len(tokenizer), hidden=64)
    spread_weights(model, 0.02)
    model.to(getattr(torch, request.param)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("how", [WHOLE, LORA, QLORA], ids=["whole", "lora", "qlora"])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_small_updates_move_every_weight(narrow, head, how, kind):
    if how is QLORA:
        pytest.importorskip("bitsandbytes")
    config = TrainConfig.model_validate({
        "base_model": str(narrow), "prepared": "x", "head": HEADS[head],
        "phases": [{"objective": [{"name": "bradley_terry"}]}], **how,
        "optimiser": {"precision": kind, "learning_rate": 5e-6},
    })
    tokenizer = load_tokenizer(narrow)
    model = build(config, tokenizer).train()
    objective = build_objective(config.phases[0].objective)
    batch = to_batch(PairCollator(tokenizer.pad_token_id)(rows(seed=3, count=8)))
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert {one.dtype for one in trained.values()} == {torch.float32}
    before = {name: one.detach().clone() for name, one in trained.items()}
    optimiser = torch.optim.AdamW(trained.values(), lr=5e-6, weight_decay=0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=kind == "fp16")
    reached = {name: torch.zeros_like(one, dtype=torch.bool) for name, one in trained.items()}
    for _ in range(5):
        autocast = precision.AUTOCAST.get(kind)
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            loss = objective(model(batch, objective.needs), batch).loss
        assert loss.dtype == torch.float32
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        for name, one in trained.items():
            if one.grad is not None:
                reached[name] |= one.grad != 0
        scaler.step(optimiser)
        scaler.update()
    moved = sum(int((reached[name] & (one != before[name])).sum()) for name, one in trained.items())
    assert moved >= 0.99 * sum(int(one.sum()) for one in reached.values()) > 0


def test_a_run_keeps_the_type_of_its_base(tmp_path):
    world = make_world(tmp_path)
    base = tiny_causal_lm(vocab_size=len(load_tokenizer(world / "base"))).bfloat16()
    base.save_pretrained(world / "base")
    config = settings(world, "bradley_terry, MLP head", 1, optimiser={"max_steps": 2})
    folder = train(TrainConfig.model_validate(config), tmp_path / "run")
    weights = load_file(folder / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    assert saved_dtype(folder) == torch.bfloat16
    # What training goes on from is not rounded.
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    kept = load_file(tmp_path / "run" / state[-1]["folder"] / "weights.safetensors")
    assert {one.dtype for one in kept.values()} == {torch.float32}


def test_the_type_of_saved_weights(narrow, tmp_path):
    name = torch.bfloat16 if narrow.name.startswith("bfloat16") else torch.float16
    assert saved_dtype(narrow) == name
    # Older folders say nothing of it.
    config = json.loads((narrow / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if "dtype" not in key})
    )
    (tmp_path / "model.safetensors").symlink_to(narrow / "model.safetensors")
    assert saved_dtype(tmp_path) == name


def test_flash_attention_gives_way_to_sdpa_with_one_line(caplog, monkeypatch):
    precision._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert usable_attention("flash_attention_2", "bf16") == "sdpa"
        assert usable_attention("flash_attention_2", "bf16") == "sdpa"
    assert caplog.text.count("cannot be used (there is no CUDA device)") == 1
    assert usable_attention(None, "bf16") is None
    # On CPUs it has no backward pass.
    assert usable_attention("flex_attention", "fp32") == "sdpa"
    # A GPU with and without the library.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_attention("flex_attention", "fp32") == "flex_attention"
    for installed, kind, expected in (
        (True, "bf16", "flash_attention_2"), (True, "fp32", "sdpa"), (False, "bf16", "sdpa"),
    ):
        monkeypatch.setattr(
            "transformers.utils.is_flash_attn_2_available", lambda have=installed: have
        )
        assert usable_attention("flash_attention_2", kind) == expected


@pytest.mark.parametrize(("accelerator", "instructions", "expected"), [
    ("cuda", True, "bf16"), ("cuda", False, "fp32"), ("mps", True, "fp32"), ("xpu", True, "bf16"),
    (None, True, "bf16"), (None, False, "fp32"),
])
def test_auto_is_bfloat16_where_the_device_computes_it(
    monkeypatch, accelerator, instructions, expected
):
    monkeypatch.setattr(
        devices, "has_accelerator",
        lambda kind=None: accelerator is not None and kind in (None, accelerator),
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: instructions)
    monkeypatch.setattr(devices, "computes_bfloat16_on_cpu", lambda: instructions)
    assert OptimiserConfig(precision="auto").autocast == expected
    for named in ("fp32", "bf16", "fp16"):
        assert OptimiserConfig(precision=named).autocast == named
