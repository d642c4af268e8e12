"""Heads of any published form as layers: found by the names of the weights, read in float32.

A head is one linear layer, or linear layers with ReLU between them, over the state of one token:
``NAME.weight`` (and ``NAME.bias``), or ``NAME.0.weight``, ``NAME.2.weight``, … as a
``torch.nn.Sequential`` saves them.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rewardsteer.errors import CheckpointError
from rewardsteer.models.heads.layers import Layer
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.loading import refuse_absent

# Names of heads in published checkpoints; `config.value_head_prefix` may name another.
HEAD_NAMES = (
    "score", "v_head", "value_head", "regression_head", "reward_head", "score_head", "rm_head",
    "out_proj", "classifier", "v_head.summary", "value_head.summary",
)


class FoundHead(NamedTuple):
    """A head by the names of its weights.

    Attributes:
        name: what its weights' names begin with.
        layers: names of the layers, in order; each has ``.weight`` and may have ``.bias``.
        outputs: how many numbers it gives.
    """

    name: str
    layers: tuple[str, ...]
    outputs: int


def find_heads(folder: FolderDescription, names: Iterable[str] = HEAD_NAMES) -> list[FoundHead]:
    """The heads that a folder's weights hold."""
    own = folder.config.get("value_head_prefix")
    names = dict.fromkeys([*names, *([own] if isinstance(own, str) and own else [])])
    return [head for name in names if (head := _head(folder, name)) is not None]


def only_head(folder: FolderDescription, *, several: bool = False) -> FoundHead:
    """The one head with one output, or with several.

    Raises:
        CheckpointError: there is none, or there are more.
    """
    known = find_heads(folder)
    heads = [head for head in known if (head.outputs > 1) == several]
    if len(heads) == 1:
        return heads[0]
    seen = ", ".join(f"{head.name} with {head.outputs}" for head in known) or "none"
    raise CheckpointError(
        f"Expected one head with {'several outputs' if several else 'one output'} in {folder.name} "
        f"(score, v_head, value_head, regression_head, …); heads found: {seen}."
    )


def _head(folder: FolderDescription, name: str) -> FoundHead | None:
    if (whole := folder.shape(f"{name}.weight")) is not None:
        return FoundHead(name, (name,), whole[0]) if len(whole) == 2 else None
    pattern = re.compile(re.escape(name) + r"\.(\d+)\.weight")
    found = sorted(int(match[1]) for one in folder.tensors if (match := pattern.fullmatch(one)))
    # Every other module is an activation without weights.
    if not found or found != list(range(0, 2 * len(found), 2)):
        return None
    shapes = [folder.tensors[f"{name}.{at}.weight"] for at in found]
    if any(len(shape) != 2 for shape in shapes):
        return None
    fits = all(shape[1] == before[0] for before, shape in itertools.pairwise(shapes))
    layers = tuple(f"{name}.{at}" for at in found)
    return FoundHead(name, layers, shapes[-1][0]) if fits else None


def read_layers(folder: FolderDescription, head: FoundHead) -> list[Layer]:
    """The layers of a head, in float32."""
    wanted = [f"{one}.{part}" for one in head.layers for part in ("weight", "bias")]
    tensors = read_tensors(folder.path, [name for name in wanted if name in folder.tensors])
    return [Layer(tensors[f"{one}.weight"], tensors.get(f"{one}.bias")) for one in head.layers]


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Some weights of a folder, in float32.

    Raises:
        CheckpointError: damaged or missing.
    """
    from safetensors import SafetensorError, safe_open

    wanted, found = set(names), {}
    try:
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, framework="pt") as weights:
                for name in wanted & set(weights.keys()):
                    found[name] = weights.get_tensor(name).float()
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The weights in {path} are damaged: {error}") from error
    refuse_absent(wanted - found.keys(), path)
    return found


def read_rows(path: Path, name: str, begin: int, end: int) -> Tensor:
    """Some rows of one weight, in float32, without the others."""
    from safetensors import SafetensorError, safe_open

    try:
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, framework="pt") as weights:
                if name in weights.keys():  # noqa: SIM118
                    rows: Tensor = weights.get_slice(name)[begin:end].float()
                    return rows
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The weights in {path} are damaged: {error}") from error
    refuse_absent([name], path)
    raise AssertionError("what is absent was refused")


def combined(layers: list[Layer], weights: Tensor, offset: float = 0.0) -> list[Layer]:
    """A head with one output: ``weights [k] · outputs [k] + offset``. The last layer takes it up,
    so the result is linear where the head is."""
    *inner, last = layers
    bias = None if last.bias is None else weights @ last.bias[:, None]
    if offset:
        bias = offset + (torch.zeros(1) if bias is None else bias)
    return [*inner, Layer((weights @ last.weight)[None], bias)]
