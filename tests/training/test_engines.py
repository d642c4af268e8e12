"""Two processes under each engine train what one process trains on the same rows."""

import shutil

import pytest

from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.training.engines import (
    OBJECTIVES,
    distance,
    launch,
    log_lines,
    make_world,
    settings,
)

FARMA = "bradley_terry | max_constraint"
INFONCE = "goal_contrastive, infonce"
CELLS = {
    "ddp": (FARMA, INFONCE), "fsdp2": (FARMA, INFONCE), "zero2": (FARMA,),
    "zero3": (FARMA, INFONCE),
}
OFTEN = {"log_steps": 2, "save_steps": 1}
LORA = {"lora": {"rank": 2}}
QLORA = {**LORA, "quantize": {"kind": "nf4"}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


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


@pytest.mark.parametrize("engine", list(CELLS))
def test_two_processes_equal_one(engine, world, alone, tmp_path):
    jobs = [
        {"config": settings(world, name, 2), "out": str(tmp_path / f"{place}")}
        for place, name in enumerate(CELLS[engine])
    ]
    cut = {"config": settings(world, "partial", 2, log=OFTEN), "out": str(tmp_path / "cut")}
    adapters = {"lora": LORA, "qlora": QLORA}
    jobs += [{**cut, "stop_at": 3}]
    jobs += [{
        "config": settings(world, "partial", 2, optimiser={"batch_size": 2, "accumulation": 2}),
        "out": str(tmp_path / "accumulated"),
    }]
    jobs += [
        {"config": settings(world, "partial", 2, **changes), "out": str(tmp_path / name)}
        for name, changes in adapters.items()
    ]
    launch(engine, jobs, tmp_path)
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
    launch(engine, [{**cut, "resume": True}], tmp_path)
    assert max(distance(alone("partial", log=OFTEN), tmp_path / "cut").values()) < 1e-5

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
        launch(engine, [{**more, "resume": True}], tmp_path, processes=4)
        assert max(distance(alone("partial", log=OFTEN), tmp_path / "moved").values()) < 1e-5


def test_every_objective_has_a_cell():
    from rewardsteer.objectives import OBJECTIVES as KNOWN

    trained = {
        term["name"] for _, phases in OBJECTIVES.values() for terms in phases for term in terms
    }
    assert trained == set(KNOWN.names())
