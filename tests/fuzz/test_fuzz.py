"""Whatever a file holds, reading it ends in values or in one of our errors; nothing is executed."""

import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fuzz.targets import TARGETS, model_files, seeds
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.goals.files import load_goals, read_npy
from rewardsteer.goals.goal_state import Provenance
from rewardsteer.models.kinds import load_scorer
from tests.fuzz.corpus import CORPUS

ROOT = Path(__file__).parents[2]
# How many examples of each: a model folder takes a hundred times as long as a file of settings.
EXAMPLES = {"readers": 40, "settings": 40, "goals": 60, "checkpoints": 12}
_VALUES = re.compile(rb':\s*("[^"]*"|[\d.e+-]+|true|false|null)')
_ODD = (
    b"null", b"NaN", b"1e999", b"-1", b"[]", b"{}", b'""', b'"\\ud800"', b"1" * 5000, b"true",
    b'"I64"', b"[[]]", b"\xff", b"\x00", b"${a}",
)


@st.composite
def mutated(draw, target):
    """A good file with a few bytes changed, cut off, put in or taken out, or a value replaced."""
    content = bytearray(draw(st.sampled_from(list(seeds(target)))))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(1, max(len(content), 1)))
        kind = draw(st.sampled_from(["cut", "put", "drop", "change", "value"]))
        values = list(_VALUES.finditer(bytes(content[:20_000])))
        if kind == "cut":
            del content[at:]
        elif kind == "put":
            content[at:at] = draw(st.sampled_from(_ODD) | st.binary(max_size=8))
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 20))]
        elif kind == "change" and at < len(content):
            content[at] = draw(st.integers(0, 255))
        elif values:
            value = draw(st.sampled_from(values))
            content[value.start(1) : value.end(1)] = draw(st.sampled_from(_ODD))
    return bytes(content)


@pytest.mark.parametrize("target", TARGETS)
def test_good_files_and_what_was_found(target):
    for content in [*seeds(target), *CORPUS[target]]:
        TARGETS[target](content)


@pytest.mark.parametrize("target", TARGETS)
def test_any_file(target):
    @settings(
        max_examples=EXAMPLES[target], deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target) | st.binary(max_size=60))
    def refused_or_read(content):
        TARGETS[target](content)

    refused_or_read()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed; extra 'fuzz'"
)
def test_atheris_runs():
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "goals", "--runs", "300", "--seconds", "5"], cwd=ROOT,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"Done \d+ runs", done.stderr)


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def folder_of(place, leave_out=()):
    place.mkdir()
    for name, content in model_files().items():
        if name not in leave_out:
            (place / name).write_bytes(content)
    return place


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors", "value_head.safetensors"]
)
def test_no_pickle_is_opened(tmp_path, name):
    mark = tmp_path / "executed"
    folder = folder_of(tmp_path / "model", ["model.safetensors"] if name.endswith("bin") else [])
    torch.save({"score.weight": Trap(mark)}, folder / name)
    with pytest.raises(CheckpointError):
        load_scorer(folder)
    (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(CheckpointError):
        load_scorer(folder)
    assert not mark.exists()


def test_no_pickled_goal_is_opened(tmp_path):
    mark, made = tmp_path / "executed", Provenance(kind="imported", model_fingerprint="")
    np.save(tmp_path / "goal.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_npy(tmp_path / "goal.npy", "preferred", made)
    (tmp_path / "goal_states.safetensors").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(DataError, match="damaged"):
        load_goals(tmp_path)
    assert not mark.exists()


def test_weights_of_another_shape_or_kind(tmp_path):
    """They are named, never quietly drawn anew."""
    from safetensors.torch import load_file

    folder = folder_of(tmp_path / "model")
    good = load_file(folder / "value_head.safetensors")
    for wrong in (
        {name: tensor[:1] for name, tensor in good.items()}, dict(list(good.items())[:-1]),
    ):
        save_file({k: v.contiguous() for k, v in wrong.items()}, folder / "value_head.safetensors")
        with pytest.raises(CheckpointError, match="of another size"):
            load_scorer(folder)
    save_file(good, folder / "value_head.safetensors")
    whole = load_file(folder / "model.safetensors")
    name = next(key for key in whole if key.endswith("q_proj.weight"))
    for wrong in (whole | {name: whole[name][:-1].clone()}, whole | {name: whole[name].long()}):
        save_file(wrong, folder / "model.safetensors", {"format": "pt"})
        try:
            loaded = load_scorer(folder)
        except CheckpointError:
            continue
        state = loaded.reward_model.base.state_dict()
        torch.testing.assert_close(state[name].float(), wrong[name].float())


def test_weights_that_are_absent_are_not_drawn_anew(tmp_path):
    from safetensors.torch import load_file

    folder = folder_of(tmp_path / "model")
    whole = load_file(folder / "model.safetensors")
    name = next(key for key in whole if key.endswith("q_proj.weight"))
    del whole[name]
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack .*q_proj.weight"):
        load_scorer(folder)
