"""Intermediate results of building goal states: running sums, or the states on disk."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rewardsteer.errors import DataError, NonFiniteError, OutputError
from rewardsteer.outputs import write_bytes


class RunningMeans:
    """Running float64 sums of states by label, and how many rows were read.

    Args:
        path: file for them; written whole or not at all.
        task: identifies the data and settings; an interrupted run of another task is refused.
        resume: continue from ``path``.

    Raises:
        OutputError: ``path`` exists and ``resume`` is False.
        DataError: it belongs to another task.
    """

    def __init__(self, path: Path, task: str, *, resume: bool) -> None:
        self.path = path
        self.rows = 0
        self._task = task
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        if path.exists():
            self._take_up(resume=resume)

    def _take_up(self, *, resume: bool) -> None:
        from safetensors import safe_open

        if not resume:
            raise OutputError(
                f"{self.path.parent} holds an interrupted run; pass resume=True (--resume) to go "
                "on with it, or delete it (--overwrite) to start over."
            )
        with safe_open(self.path, framework="pt") as file:
            header = json.loads(file.metadata()["progress"])
            self._sums = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["task"] != self._task:
            raise DataError(
                f"{self.path.parent} holds an interrupted run with other settings, data or "
                "weights; delete it (--overwrite) to start over."
            )
        self.rows, self._counts = header["rows"], header["counts"]

    def add(self, labels: Sequence[str], states: Tensor) -> None:
        """Add states ``[R, D]``, one label each."""
        exact = _finite(states).cpu().double()
        for label in set(labels):
            chosen = exact[[index for index, own in enumerate(labels) if own == label]].sum(0)
            self._sums[label] = self._sums.get(label, torch.zeros_like(chosen)) + chosen
        for label in labels:
            self._counts[label] = self._counts.get(label, 0) + 1

    def save(self, rows: int) -> None:
        """Save the sums, which include the first ``rows`` rows."""
        from safetensors.torch import save

        self.rows = rows
        header = {"task": self._task, "rows": rows, "counts": self._counts}
        tensors = dict(self._sums) or {"none": torch.zeros(1)}
        write_bytes(self.path, save(tensors, {"progress": json.dumps(header)}))

    def means(self) -> dict[str, tuple[Tensor, int]]:
        """Mean ``[D]`` (float64) and count by label, in order of the labels."""
        return {
            label: (self._sums[label] / count, count)
            for label, count in sorted(self._counts.items())
        }

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


class StateStore:
    """States appended to raw float32 files: last-token and prompt states, and their names.

    Args:
        width: numbers in a state.
        rows: rows to keep; those that an interrupted run wrote after them are removed.

    Raises:
        DataError: fewer rows are there.
    """

    def __init__(self, folder: Path, width: int, *, rows: int) -> None:
        self.folder = folder
        self._width = width
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in (("last", 4 * width), ("prompt", 4 * width), ("names", _NAME)):
            path = folder / name
            path.touch()
            if path.stat().st_size < rows * size:
                raise DataError(
                    f"{path} lost rows that an interrupted run had read; delete them all "
                    "(--overwrite) to start over."
                )
            with path.open("r+b") as stream:
                stream.truncate(rows * size)

    def append(self, names: Sequence[str], last: Tensor, prompts: Tensor) -> None:
        """Add rows: names, last states ``[R, D]`` and prompt states ``[R, D]``."""
        for name in names:
            if len(name.encode()) > _NAME:
                raise DataError(f"The goal name {name!r} is longer than {_NAME} bytes.")
        for place, states in (("last", last), ("prompt", prompts)):
            self._write(place, _finite(states).float().cpu().numpy().tobytes())
        self._write("names", b"".join(name.encode().ljust(_NAME, b"\0") for name in names))

    def _write(self, place: str, content: bytes) -> None:
        # On disk before the count of rows that includes it.
        with (self.folder / place).open("ab") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def names(self) -> list[str]:
        """Different names, sorted."""
        return sorted(set(self._labels()))

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Last and prompt states ``[N, D]`` of a name; memory-mapped if it is the only one."""
        labels = self._labels()
        chosen = np.flatnonzero(np.array(labels) == name)
        last, prompt = (
            np.memmap(self.folder / place, np.float32, "r").reshape(-1, self._width)
            for place in ("last", "prompt")
        )
        if len(chosen) == len(labels):
            return last, prompt
        return last[chosen], prompt[chosen]

    def _labels(self) -> list[str]:
        raw = (self.folder / "names").read_bytes()
        return [raw[i : i + _NAME].rstrip(b"\0").decode() for i in range(0, len(raw), _NAME)]

    def discard(self) -> None:
        for name in ("last", "prompt", "names"):
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()


_NAME = 64  # bytes of a name


def _finite(states: Tensor) -> Tensor:
    if not bool(torch.isfinite(states).all()):
        raise NonFiniteError(
            "The reward model gave NaN or infinite hidden states; the checkpoint may be damaged, "
            "or its values overflow in this dtype: try float32."
        )
    return states


def cluster(states: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means centres ``[count, D]`` float32 of states ``[N, D]``, read in slices."""
    from sklearn.cluster import MiniBatchKMeans

    size = max(4096, count)
    model = MiniBatchKMeans(count, random_state=seed, batch_size=size, n_init=3)
    order = np.random.default_rng(seed)
    starts = list(range(0, len(states), size))
    if len(starts) > 1 and len(states) - starts[-1] < count:
        starts.pop()  # a remainder smaller than the number of clusters cannot be fitted by itself
    for _ in range(1 if len(starts) > 8 else 8):
        for start in order.permutation(starts):
            model.partial_fit(states[start : start + size])
    centres: np.ndarray = model.cluster_centers_.astype(np.float32)
    return centres
