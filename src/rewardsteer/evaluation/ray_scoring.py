"""Scoring on a Ray cluster: actors hold the model, Ray Data sends them the indices of shards.

Only indices are sent. Every actor reads its rows from the input and writes its shards itself, so
all machines must see the folders of the input, the output and the model under the same paths. A
shard that Ray makes twice, because a machine failed, is the same file again.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rewardsteer import errors
from rewardsteer.data.rows import Rows
from rewardsteer.data.template import Template
from rewardsteer.devices import AUTO
from rewardsteer.evaluation.scoring import Engine, Settings, score_shard
from rewardsteer.evaluation.shards import Shards
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import require_tokens

# Largest number of blocks of indices that Ray keeps track of.
_BLOCKS = 10_000


def on_ray(
    folder: Path, rows: Rows, settings: Settings, *, device: str = AUTO,
    dtype: str | None = None, template: Template | None = None, address: str | None = None,
    actors: int | None = None,
) -> Engine:
    """An engine that scores shards on a Ray cluster.

    Args:
        rows: the input.
        settings: see `Settings`.
        device: of each actor; ``cuda`` takes one GPU each, ``auto`` too where the cluster has any.
        dtype: float32, bfloat16 or float16; None: as saved.
        template: how prompts and responses are written; None: the folder's own.
        address: of a cluster; None: the one RAY_ADDRESS names, else one on this machine alone.
        actors: their number; None: one per GPU, or one per CPU core where there is no GPU.

    Raises:
        ConfigError: Ray is not installed, or the cluster does not answer.
    """
    def run(shards: Shards, missing: Sequence[int]) -> Iterator[int]:
        if not missing:
            return
        ray = _connect(address)
        there = ray.cluster_resources()
        place = ("cuda" if there.get("GPU", 0) >= 1 else "cpu") if device == AUTO else device
        kind = "GPU" if place.startswith("cuda") else "CPU"
        count = min(actors or int(there.get(kind, 0)), len(missing))
        if count < 1:
            raise errors.ConfigError(
                f"The Ray cluster has no {kind}; choose another device= (--device)."
            )
        shards.folder = shards.folder.absolute()
        options = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        numbers = ray.data.from_items(
            [{"shard": shard} for shard in missing], override_num_blocks=min(len(missing), _BLOCKS)
        )
        done = numbers.map_batches(
            _Actor, batch_size=1, compute=ray.data.ActorPoolStrategy(size=count),
            fn_constructor_args=(folder.absolute(), rows, shards, settings, place, dtype, template),
            **options,
        )
        for answer in done.iter_rows():
            if answer["fault"]:
                raise getattr(errors, answer["kind"])(answer["fault"])
            yield _here(shards, int(answer["shard"]))

    return run


def _connect(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise errors.ConfigError(
            "Scoring on Ray (--engine ray) needs it: pip install 'rewardsteer[ray]'."
        ) from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        return ray
    local: dict[str, Any] = {}
    if address is None and not os.environ.get("RAY_ADDRESS"):
        local = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise errors.ConfigError(
            f"The Ray cluster {address or os.environ.get('RAY_ADDRESS', '')} cannot be reached: "
            f"{error}"
        ) from error
    return ray


def _here(shards: Shards, shard: int) -> int:
    if not shards.place(shard).exists():
        raise errors.OutputError(
            f"Shard {shard} was scored, but {shards.place(shard)} is not there: the output must "
            "lie in a folder that all machines of the cluster share."
        )
    return shard


class _Actor:
    """An actor that holds the model; Ray calls it with indices of shards."""

    def __init__(
        self, folder: Path, rows: Rows, shards: Shards, settings: Settings, device: str,
        dtype: str | None, template: Template | None,
    ) -> None:
        import torch

        kind = None if dtype is None else getattr(torch, dtype)
        self._rows, self._shards, self._settings = rows, shards, settings
        self._scorer = require_tokens(
            load_scorer(folder, device=device, dtype=kind, template=template), "scoring with Ray"
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [shard] = batch["shard"].tolist()
        fault = kind = ""
        try:
            rows = self._rows.read(shard)
            first = shard * self._rows.step
            self._shards.write(shard, score_shard(self._scorer, rows, self._settings, first))
        except errors.RewardsteerError as error:
            fault, kind = str(error), type(error).__name__
        return {"shard": [shard], "fault": [fault], "kind": [kind]}
