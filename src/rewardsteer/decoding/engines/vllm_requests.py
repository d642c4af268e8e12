"""What vLLM is told: reward models by environment variables, weights by each request.

The environment reaches vLLM's front end, which checks requests, and its workers, which hold the
models; nothing else that a logits processor is given does.

    REWARDSTEER_REWARD_MODEL    folder of a reward model; several, separated as in PATH, or as a
                                JSON list, where names may hold the separator
    REWARDSTEER_REWARD_WEIGHT   weight of requests that name none; default: 0, the policy alone
    REWARDSTEER_REWARD_TOP_K    candidates of such requests, for scalar heads; default: 10
    REWARDSTEER_REWARD_DEVICE   where they are held; default: the policy's device
    REWARDSTEER_REWARD_DTYPE    float32, bfloat16 or float16; default: as saved
    REWARDSTEER_REWARD_MEMORY   share of that device's memory that they may take; default: no limit
"""

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardsteer.decoding.config import MOST_WEIGHT
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import read_card
from rewardsteer.registry import nearest

MODELS = "REWARDSTEER_REWARD_MODEL"
DEVICE = "REWARDSTEER_REWARD_DEVICE"
DTYPE = "REWARDSTEER_REWARD_DTYPE"
MEMORY = "REWARDSTEER_REWARD_MEMORY"
WEIGHT = "REWARDSTEER_REWARD_WEIGHT"
TOP_K = "REWARDSTEER_REWARD_TOP_K"
DTYPES = ("float32", "bfloat16", "float16")
NO_DRAFTS = (
    "Reward-guided decoding needs the logits of every token, so it does not go with speculative "
    "decoding; leave out the speculative configuration."
)

# Every candidate is a row of the reward model's forward pass: a request may not ask for so many
# that memory runs out for all.
MOST_CANDIDATES = 256
_CANDIDATES = 10
_PREFIX = "reward_"
_NAMES = ("reward_weight", "reward_top_k", "reward_model", "reward_name")


@dataclass(frozen=True)
class Wish:
    """What a request asks of a reward model.

    Attributes:
        weight: w of the method, in logits per reward unit; not 0.
        top_k: the policy's best tokens that a scalar head is asked about.
        model: name of the reward model.
        name: of the request, for messages and costs; "" when it has none.
    """

    weight: float
    top_k: int
    model: str
    name: str = ""


def reward_folders() -> dict[str, Path]:
    """Folders of the reward models by their last part, in the order given.

    Raises:
        ConfigError: none is given, or two share a name.
    """
    folders = [Path(part) for part in _parts(os.environ.get(MODELS, "")) if part]
    if not folders:
        raise ConfigError(
            f"The environment variable {MODELS} names no reward model; set it to the folder of "
            f"one, or of several separated by {os.pathsep!r}, before vLLM starts."
        )
    named = {folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise ConfigError(
            f"Requests name reward models by their folders' last part, so these must differ; "
            f"{MODELS} is {os.environ[MODELS]!r}."
        )
    return named


def _parts(value: str) -> list[str]:
    if not value.startswith("["):
        # A folder whose name holds the separator is one folder.
        return [value] if Path(value).is_dir() else value.split(os.pathsep)
    try:
        parts = json.loads(value)
    except ValueError:
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(
            f"{MODELS} must be a folder, several separated by {os.pathsep!r}, or a JSON list of "
            f"folders, got {value!r}."
        )
    return parts


def default_weight() -> float:
    """Weight of requests that name none; raises `ConfigError` where the environment's is none."""
    return _number(WEIGHT, os.environ.get(WEIGHT) or "0")


def default_top_k() -> int:
    """Candidates of requests that name none; raises `ConfigError` as `default_weight` does."""
    number = _number(TOP_K, os.environ.get(TOP_K) or str(_CANDIDATES))
    top_k = int(number) if number == int(number) else number
    check_top_k(top_k, TOP_K)
    return int(top_k)


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not _is_weight(number):
        raise ConfigError(f"{name} must be a number of at most {MOST_WEIGHT:g}, got {value!r}.")
    return number


def read_wish(
    extra_args: Mapping[str, Any] | None, folders: Mapping[str, Path] | None = None
) -> Wish | None:
    """The wish of a request; None where it asks nothing: its weight is 0, or it names none and the
    environment gives no default.

    Args:
        folders: of the reward models by name; None: as the environment says now.
        extra_args: ``reward_weight`` (a number), ``reward_top_k`` (1 to 256, default 10; scalar
            heads alone), ``reward_model`` (default: the first), ``reward_name`` (text). Names that
            begin otherwise are not ours.

    Raises:
        ConfigError: an unknown name or a bad value.
    """
    given = {name: v for name, v in (extra_args or {}).items() if name.startswith(_PREFIX)}
    unknown = sorted(given.keys() - set(_NAMES))
    if unknown:
        raise ConfigError(
            f"Unknown argument {unknown[0]!r}.{nearest(unknown[0], list(_NAMES))} Known: "
            f"{', '.join(_NAMES)}."
        )
    usual = default_weight()
    if not given and not usual:
        return None
    weight = given.get("reward_weight", usual or None)
    if not _is_weight(weight):
        raise ConfigError(
            f"'reward_weight' must be a finite number, got {weight!r}; at most ±{MOST_WEIGHT:g}."
        )
    folders = reward_folders() if folders is None else folders
    model = given.get("reward_model", next(iter(folders)))
    if model not in folders:
        raise ConfigError(
            f"'reward_model' must be one of {', '.join(map(repr, folders))}, got {model!r}."
        )
    top_k = given["reward_top_k"] if "reward_top_k" in given else default_top_k()
    check_top_k(top_k)
    if "reward_top_k" in given and _head(folders[model]) != "scalar":
        raise ConfigError(
            f"'reward_top_k' is for reward models with a scalar head, but {model!r} knows the "
            "rewards of all next tokens; leave it out."
        )
    name = given.get("reward_name", "")
    if not isinstance(name, str):
        raise ConfigError(f"'reward_name' must be text, got {name!r}.")
    return Wish(float(weight), top_k, model, name) if weight else None


def check_top_k(top_k: Any, name: str = "reward_top_k") -> None:
    """Raise `ConfigError` unless so many candidates may be asked about."""
    whole = isinstance(top_k, int) and not isinstance(top_k, bool)
    if not whole or not 1 <= top_k <= MOST_CANDIDATES:
        raise ConfigError(
            f"The number of candidates, {name!r}, must be a whole number from 1 to "
            f"{MOST_CANDIDATES}, got {top_k!r}."
        )


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= MOST_WEIGHT


@functools.cache
def _head(folder: Path) -> str:
    return read_card(folder).head.kind
