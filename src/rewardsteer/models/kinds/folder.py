"""A description of a model folder without its weights, by which kinds are recognised."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, CARD, fingerprint
from rewardsteer.outputs import read_json

# Longest header of a safetensors file that is read.
_LONGEST_HEADER = 100 * 2**20


@dataclass(frozen=True)
class FolderDescription:
    """A model folder; for an address, only the name is set.

    Attributes:
        name: given by the user.
        path: the local folder.
        config: contents of config.json; empty without one.
        tensors: shapes of all weights by name, from the headers of the safetensors files.
        tokenizer: contents of tokenizer_config.json; empty without one.
        has_card: whether ``rewardsteer.json`` lies there.
        is_adapter: whether it is a peft adapter.
        trusted: whether the user allows Python code from the folder to run.
    """

    name: str
    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    has_card: bool = False
    is_adapter: bool = False
    trusted: bool = False

    @property
    def architecture(self) -> str:
        """The first name in ``architectures``; "" when none is named."""
        named = self.config.get("architectures") or [""]
        return str(named[0]) if isinstance(named, list) else str(named)

    @property
    def labels(self) -> list[str]:
        """Names of a classifier's outputs, in order; transformers' own two where the configuration
        names none.

        Raises:
            CheckpointError: the configuration is damaged.
        """
        try:
            given = self.config.get("id2label") or {}
            names = {int(key): str(name) for key, name in given.items()}
            count = len(names) or int(self.config.get("num_labels") or 2)
        except (AttributeError, TypeError, ValueError) as error:
            place = self.path / "config.json"
            raise CheckpointError(f"The file {place} is damaged: {error}") from error
        return [names.get(number, f"LABEL_{number}") for number in range(count)]

    @property
    def identity(self) -> dict[str, Any]:
        """Name and fingerprint of the weights, as keywords of a scorer."""
        return {"name": str(self.path), "fingerprint": fingerprint(self.path)}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a weight; None when there is none of that name."""
        return self.tensors.get(name)


def describe_folder(name: str | Path, path: Path, *, trusted: bool = False) -> FolderDescription:
    """Read what a folder holds; ``name`` is what the user called it.

    Raises:
        CheckpointError: a file is damaged.
    """
    return FolderDescription(
        str(name), path, config=_contents(path / "config.json"), tensors=_tensors(path),
        tokenizer=_contents(path / "tokenizer_config.json"), has_card=(path / CARD).exists(),
        is_adapter=(path / ADAPTER_CONFIG).exists(), trusted=trusted,
    )


def _contents(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = read_json(file)
    except ValueError as error:
        raise CheckpointError(f"The file {file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"The file {file} is damaged: expected an object, got {type(found).__name__}."
        )
    return found


def _tensors(path: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        found |= _shapes(file)
    return found


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes from the JSON at the beginning of a safetensors file, whose length is in the first 8
    bytes."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(_LONGEST_HEADER, file.stat().st_size):
                raise ValueError("its header has no valid length")
            found = json.loads(stream.read(length))
            return {
                name: tuple(int(size) for size in entry["shape"])
                for name, entry in found.items() if name != "__metadata__"
            }
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"The weights {file} are damaged: {error}") from error
