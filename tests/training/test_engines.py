"""Two processes under each engine train what one process trains on the same rows."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.checkpoint import ensure_padding_token, load_tokenizer
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import build
from rewardsteer.training.run import train
from tests.fakes import spread_weights, tiny_causal_lm
from tests.training.engines import (
    OBJECTIVES,
    distance,
    launch,
    log_lines,
    make_rows,
    make_world,
    settings,
)

FARMA = "bradley_terry | max_constraint"
INFONCE = "goal_contrastive, infonce"
CELLS = {
    "ddp": (FARMA, INFONCE, "process", "regression", "listwise", "labels", "outcome"),
    "fsdp2": (FARMA, INFONCE, "regression"), "zero2": (FARMA,),
    "zero3": (FARMA, INFONCE, "regression"),
}
OFTEN = {"logging_steps": 2, "save_steps": 1}
LORA = {"lora": {"rank": 2}}
QLORA = {**LORA, "quantize": {"kind": "nf4"}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    make_rows(folder)
    return folder


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """The trainings in this process, each made once."""
    folder, made = tmp_path_factory.mktemp("alone"), {}

    def run(objective, **changes):
        key = (objective, str(changes))
        if key not in made:
            out = folder / str(len(made))
            train(TrainConfig.model_validate(settings(world, objective, 1, **changes)), out)
            made[key] = out
        return made[key]

    return run


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A base saved in bfloat16, and settings of short trainings in bf16 from it."""
    world = make_world(tmp_path_factory.mktemp("narrow"))
    torch.manual_seed(0)
    base = tiny_causal_lm(vocab_size=len(load_tokenizer(world / "base")), hidden=64)
    spread_weights(base, 0.02)
    base.bfloat16().save_pretrained(world / "base")
    small = {"precision": "bf16", "learning_rate": 5e-6, "max_steps": 5}
    return {
        "scalar": settings(world, "bradley_terry", 2, optimiser=small),
        "scalar-lora": settings(world, "bradley_terry", 2, optimiser=small, **LORA),
        "vocabulary": settings(world, "autoregressive", 2, optimiser=small),
        "vocabulary-lora": settings(world, "autoregressive", 2, optimiser=small, **LORA),
    }


def check_every_weight_moved(config, out):
    """As test_precision has it in one process; what is kept is what was trained, not what was
    rounded for a forward pass."""
    tokenizer = load_tokenizer(config["base_model"])
    ensure_padding_token(tokenizer)
    model = build(TrainConfig.model_validate(config), tokenizer)
    start = dict(model.named_parameters())
    state = json.loads((out / "state.json").read_text())
    end = load_file(out / state[-1]["folder"] / "weights.safetensors")
    changed = {key: value != start[key].detach() for key, value in end.items()}
    # Embeddings of tokens that no row has, have no gradient.
    reached = {
        key: moved[moved.any(1)] if "embed" in key else moved for key, moved in changed.items()
    }
    assert {value.dtype for value in end.values()} == {torch.float32}, out.name
    moved = sum(int(one.sum()) for one in reached.values())
    assert moved >= 0.99 * sum(one.numel() for one in reached.values()), out.name
    for head in (key for key in reached if "score" in key or "lm_head" in key):
        assert reached[head].float().mean() > 0.99, (out.name, head)


def check_holds_no_base(checkpoint, world):
    """A checkpoint of adapters has them and the head, and nowhere a weight of the base."""
    held = load_file(checkpoint / "model.safetensors")
    assert held.keys() == {
        name for name in held if "lora_" in name or "score" in name
    }, sorted(held)
    base = load_file(world / "base" / "model.safetensors")
    largest = max(base, key=lambda name: base[name].numel() if "layers" in name else 0)
    sample = base[largest].flatten()[:16].numpy().tobytes()
    files = [one for one in checkpoint.rglob("*") if one.is_file()]
    assert not [one.name for one in files if sample in one.read_bytes()]


@pytest.mark.parametrize("engine", list(CELLS))
def test_two_processes_equal_one(engine, world, alone, narrow, tmp_path, warm):
    """One launch for all of it, because gloo and the engines take their time to begin."""
    jobs = [
        {"config": settings(world, name, 2), "out": str(tmp_path / f"{place}")}
        for place, name in enumerate(CELLS[engine])
    ]
    cut = {"config": settings(world, "partial", 2, log=OFTEN), "out": str(tmp_path / "cut")}
    adapters = {"lora": LORA, "qlora": QLORA}
    thin = {
        "config": settings(world, "partial", 2, log=OFTEN, **LORA), "out": str(tmp_path / "thin"),
    }
    jobs += [{**cut, "stop_at": 3}, {**thin, "stop_at": 3}]
    jobs += [{
        "config": settings(world, "partial", 2, optimiser={
            "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        }),
        "out": str(tmp_path / "accumulated"),
    }]
    jobs += [
        {"config": settings(world, "partial", 2, **changes), "out": str(tmp_path / name)}
        for name, changes in adapters.items()
    ]
    jobs += [{"config": config, "out": str(tmp_path / name)} for name, config in narrow.items()]
    launch(engine, jobs, tmp_path, warm)
    for name, config in narrow.items():
        check_every_weight_moved(config, tmp_path / name)
    for place, name in enumerate(CELLS[engine]):
        assert max(distance(alone(name), tmp_path / f"{place}").values()) < 1e-5, name
    for name, changes in adapters.items():
        assert max(distance(alone("partial", **changes), tmp_path / name).values()) < 1e-5, name
    # An update's prefixes weigh the same in whatever batch and process they are.
    whole = distance(alone("partial"), tmp_path / "accumulated")
    assert max(whole["loss"], whole["weights"]) < 1e-5
    # What is logged beside the loss is of both processes too.
    for ours, theirs in zip(log_lines(alone(FARMA)), log_lines(tmp_path / "0"), strict=True):
        for name in {"accuracy", "reward_gap", "grad_norm"} & ours.keys():
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4, abs=1e-5)
    saved = tmp_path / "cut" / "phases" / "01-partial"
    assert [folder.name for folder in sorted(saved.glob("checkpoint-*"))] == [
        "checkpoint-2", "checkpoint-3",
    ]
    shutil.copytree(tmp_path / "cut", tmp_path / "moved")
    check_holds_no_base(tmp_path / "thin" / "phases" / "01-partial" / "checkpoint-3", world)
    launch(engine, [{**cut, "resume": True}, {**thin, "resume": True}], tmp_path, warm)
    assert max(distance(alone("partial", log=OFTEN), tmp_path / "cut").values()) < 1e-5
    thin_alone = alone("partial", log=OFTEN, **LORA)
    assert max(distance(thin_alone, tmp_path / "thin").values()) < 1e-5

    def go_on(processes):
        config = settings(world, "partial", processes, log=OFTEN)
        return train(TrainConfig.model_validate(config), tmp_path / "moved", resume=True)

    # What is left of it, on this process alone.
    with pytest.raises(ConfigError, match="their product is 8"):
        go_on(2)
    if engine == "ddp":
        go_on(1)
        assert max(distance(alone("partial", log=OFTEN), tmp_path / "moved").values()) < 1e-5
    else:
        message = f"written by {engine} on 2 processes, and single"
        with pytest.raises(CheckpointError, match=message):
            go_on(1)
    if engine == "fsdp2":
        more = {"config": settings(world, "partial", 4, log=OFTEN), "out": str(tmp_path / "moved")}
        launch(engine, [{**more, "resume": True}], tmp_path, warm, processes=4)
        assert max(distance(alone("partial", log=OFTEN), tmp_path / "moved").values()) < 1e-5


def test_every_objective_has_a_cell():
    from rewardsteer.objectives import OBJECTIVES as KNOWN

    trained = {
        term["name"] for _, phases in OBJECTIVES.values() for terms in phases for term in terms
    }
    # `distillation` learns from the records of a command of its own and is not compared here yet.
    assert trained == set(KNOWN.names()) - {"distillation"}
