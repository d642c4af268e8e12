"""Goal states on disk: ``goal_states.safetensors`` beside the weights, never a pickle.

The tensors are ``NAME.vectors`` and, for goals of kind nearest, ``NAME.keys``. The provenance of
every goal stands in the file's own header; ``goal_states.json`` repeats it for people to read. The
published form, a ``.npy`` of shape (1, hidden), is read and written too.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardsteer.data.template import stored_template
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.faults import checked
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.goals.places import goal_file
from rewardsteer.models.checkpoint import CARD, GOAL_STATES, read_card, write_card
from rewardsteer.outputs import write_bytes, write_json


def save_goals(folder: Path, goals: Mapping[str, GoalState]) -> Path:
    """Write goals into a folder, in place of those that it held, and name them in its card.

    Returns:
        the file.
    """
    from safetensors.torch import save

    tensors, header = {}, {}
    for name, goal in sorted(goals.items()):
        tensors[f"{name}.vectors"] = goal.vectors.float().contiguous().cpu()
        if goal.keys is not None:
            tensors[f"{name}.keys"] = goal.keys.float().contiguous().cpu()
        header[name] = goal.provenance.model_dump(mode="json")
    place = folder / GOAL_STATES
    write_bytes(place, save(tensors, {"goals": json.dumps(header)}))
    write_json(place.with_suffix(".json"), header)
    if (folder / CARD).exists():
        card = read_card(folder)
        if card.goal_states != [GOAL_STATES]:
            write_card(folder, card.model_copy(update={"goal_states": [GOAL_STATES]}))
    return place


def load_goals(source: Path) -> dict[str, GoalState]:
    """All goals of a file or of a folder that holds one, by name.

    Raises:
        DataError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    place = goal_file(source)
    try:
        with safe_open(place, framework="pt") as file:
            header = json.loads((file.metadata() or {})["goals"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(header, dict):
            raise ValueError("its header names no goals")
        return {
            name: GoalState(
                name, tensors[f"{name}.vectors"], checked(Provenance, values),
                tensors.get(f"{name}.keys"),
            )
            for name, values in header.items()
        }
    except (
        SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError,
    ) as error:
        raise DataError(f"The goal states in {place} are damaged: {error}") from error


def load_goal(source: Path, name: str | None = None) -> GoalState:
    """One goal: the named one, or the only one there is.

    Raises:
        DataError: no such goal, or several and no name.
    """
    goals = load_goals(source)
    if name is None and len(goals) == 1:
        return next(iter(goals.values()))
    if name is None or name not in goals:
        asked = "a name is needed to choose among them" if name is None else f"not {name!r}"
        raise DataError(f"{source} holds the goals {', '.join(sorted(goals))}: {asked}.")
    return goals[name]


def read_npy(path: Path, name: str, provenance: Provenance) -> GoalState:
    """A goal in the published form: ``.npy`` of shape (1, hidden) or (hidden,).

    Raises:
        DataError: unreadable, a pickle, or of another shape.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header raises a dozen unrelated kinds
        raise DataError(f"The goal state {path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"The goal state {path} is an archive of arrays; expected one .npy array.")
    if array.dtype.kind not in "fiu" or array.ndim > 2 or (array.ndim == 2 and len(array) != 1):
        raise DataError(
            f"The goal state {path} holds {array.dtype} numbers of shape {array.shape}; expected "
            "floating-point numbers of shape (1, hidden size)."
        )
    vectors = torch.from_numpy(array.astype(np.float32)).reshape(1, -1)
    return GoalState(name, vectors, provenance)


def write_npy(path: Path, goal: GoalState) -> None:
    """Write a goal of one vector in the published form; raises `DataError` for other goals."""
    if len(goal.vectors) != 1:
        raise DataError(
            f"The goal {goal.name!r} has {len(goal.vectors)} vectors; the .npy form holds one."
        )
    buffer = io.BytesIO()
    np.save(buffer, goal.vectors.float().numpy(), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def require_goal(method: str, goal: GoalState | None, scorer: Any) -> GoalState:
    """The goal, for a decoding method that needs one.

    Raises:
        MismatchError: none was given, or one of another reward model.
    """
    if goal is None:
        raise MismatchError(
            f"The method {method!r} needs a goal state and none was given; make one with "
            "'rewardsteer goal-state' and give it as the goal."
        )
    check_goal(goal, scorer)
    return goal


def check_goal(goal: GoalState, scorer: Any) -> None:
    """Refuse a goal that was not made with this reward model.

    Args:
        goal: the goal.
        scorer: a `rewardsteer.models.scorer.Scorer`.

    Raises:
        ConfigError: it is no goal state.
        MismatchError: another width, other weights or another template.
    """
    if not isinstance(goal, GoalState):
        raise ConfigError(
            f"Expected a goal state, as RewardModel.goal_state gives, got {type(goal).__name__}."
        )
    width = scorer.hidden_size
    if goal.width != width:
        raise MismatchError(
            f"The goal state {goal.name!r} has {goal.width} numbers, the hidden states of "
            f"{scorer.name} have {width}; use a goal made with this reward model."
        )
    made = goal.provenance
    if made.model_fingerprint != scorer.fingerprint:
        raise MismatchError(
            f"The goal state {goal.name!r} was made with other weights (fingerprint "
            f"{made.model_fingerprint or 'unknown'}) than {scorer.name} has "
            f"({scorer.fingerprint or 'unknown'}); make it again with 'rewardsteer goal-state'."
        )
    if made.template and stored_template(made.template) != scorer.template:
        raise MismatchError(
            f"The goal state {goal.name!r} was read under another response template than "
            f"{scorer.name} uses; make it again with 'rewardsteer goal-state'."
        )


def goals_beside(folder: Path, scorer: Any) -> dict[str, GoalState]:
    """The goal states beside a reward model's weights, by name; none where there are none.

    Raises:
        DataError: they are damaged.
        MismatchError: they are of other weights.
    """
    if not (folder / GOAL_STATES).exists():
        return {}
    goals = load_goals(folder)
    for goal in goals.values():
        check_goal(goal, scorer)
    return goals
