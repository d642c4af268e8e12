"""Losses, gradients, rewards and whole trainings on a CUDA device."""

import copy
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rewardsteer.data.collate import PairCollator
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.packing.choose import choose_packing, packed_attention
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.config import TermConfig, TrainConfig
from rewardsteer.training.run import train
from tests.models.test_packing import build
from tests.objectives.test_objectives import rows
from tests.training.engines import (
    OBJECTIVES,
    ROOT,
    distance,
    log_lines,
    make_rows,
    make_world,
    settings,
)
from tests.training.test_operators import MASK, TERMS

FARMA = "bradley_terry | max_constraint"


def step(head, name, costs, device):
    """Loss and gradients of one batch."""
    from rewardsteer.data.collate import to_batch

    torch.manual_seed(0)
    model = build("llama", head, torch.float32, "sdpa").to(device)
    objective = build_objective([TermConfig(name=name)])
    fields = PairCollator(
        0, paired=objective.rows == "pairs", prefixes=objective.prefixes, packing=costs
    )(rows(seed=3, count=4))
    fields = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in fields.items()
    }
    if fields["packing"] is not None:
        fields["packing"] = {key: value.to(device) for key, value in fields["packing"].items()}
    with packed_attention(model, costs):
        loss = model(to_batch(fields), objective).loss
    loss.backward()
    return loss.item(), {
        key: one.grad.cpu() for key, one in model.named_parameters() if one.grad is not None
    }


@pytest.mark.parametrize("costs", [None, MASK], ids=["padded", "masked"])
@pytest.mark.parametrize(
    ("head", "name"), [(head, name) for head, names in TERMS.items() for name in names]
)
def test_losses_and_gradients_are_those_of_the_cpu(head, name, costs):
    loss, gradients = step(head, name, costs, "cuda")
    expected, plain = step(head, name, None, "cpu")
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(gradients, plain, rtol=1e-3, atol=1e-4)


def test_segments_are_not_chosen():
    model = build("llama", "scalar", torch.float32, "sdpa").cuda()
    assert choose_packing(model, 9).per_kernel_call is None


HOW = {
    "left padding": ("bradley_terry", {"padding_side": "left"}),
    "flex attention": ("bradley_terry", {"attn_implementation": "flex_attention"}),
    "deterministic": (FARMA, {"deterministic": True}),
    "checkpointing": (FARMA, {"optimiser": {"gradient_checkpointing": True}}),
    "accumulation": (FARMA, {"optimiser": {"gradient_accumulation_steps": 2}}),
    "batches of tokens": (FARMA, {"optimiser": {"batch_tokens": 512}}),
    "offload": ("bradley_terry", {"optimiser": {"activation_offload": True}}),
    "nf4": (FARMA, {"lora": {"rank": 2}, "quantize": {"kind": "nf4"}}),
    "int8": ("bradley_terry", {"lora": {"rank": 2}, "quantize": {"kind": "int8"}}),
    "kept adapters": (FARMA, {"lora": {"rank": 2, "merge": False}}),
    "checkpoints": ("partial", {"log": {"save_steps": 2}}),
}
NEEDS = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "offload": "trl"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    make_rows(folder)
    return folder


def run(world, out, objective, **changes):
    """Train in bf16; every logged loss is a number, and the model scores."""
    changes["optimiser"] = {"precision": "bf16", **changes.get("optimiser", {})}
    folder = train(
        TrainConfig.model_validate(settings(world, objective, 1, **changes)), out
    )
    losses = [line["loss"] for line in log_lines(out) if "loss" in line]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert np.isfinite(load_scorer(folder, device="cuda").score(["1+1="], ["2"])).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(world, tmp_path, objective):
    run(world, tmp_path / "run", objective)


@pytest.mark.parametrize("how", HOW)
def test_every_way_of_training(world, tmp_path, how):
    pytest.importorskip(NEEDS.get(how, "torch"))
    objective, changes = HOW[how]
    try:
        run(world, tmp_path / "run", objective, **copy.deepcopy(changes))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "fsdp2_offload", "zero2", "zero3"])
def test_two_gpus_train_what_one_does(world, tmp_path, engine):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    for processes, out in ((2, tmp_path / "two"), (1, tmp_path / "one")):
        config = tmp_path / f"{processes}.yaml"
        config.write_text(json.dumps(settings(world, FARMA, processes)))
        command = [sys.executable, "-m", "rewardsteer", "train", str(config), "--out", str(out)]
        if processes == 2:
            command[1:2] = [
                "-m", "accelerate.commands.launch", "--num_processes", "2",
                "--config_file", str(ROOT / "launch" / f"{engine}.yaml"), "-m",
            ]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        try:
            subprocess.run(command, check=True, cwd=ROOT, timeout=900)
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    assert max(distance(tmp_path / "one", tmp_path / "two").values()) < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("objective", ["bradley_terry", "bradley_terry | max_constraint"])
@pytest.mark.parametrize("how", [{}, {"lora": {"rank": 2}}], ids=["whole", "lora"])
def test_a_run_trains_and_its_model_scores(tmp_path, objective, precision, how):
    world = make_world(tmp_path)
    config = settings(world, objective, 1, optimiser={"precision": precision}, **how)
    folder = train(TrainConfig.model_validate(config), tmp_path / "run")
    prompts, answers = ["1+1="] * 3, ["2", "3", "12"]
    found = load_scorer(folder, device="cuda").score(prompts, answers)
    expected = load_scorer(folder, device="cpu").score(prompts, answers)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
