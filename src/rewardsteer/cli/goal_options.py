"""The options ``--goal`` and ``--goal-name``, which select a command's goal state."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardsteer.evaluation.scoring import Described


def check_goal_options(goal: str | None, name: str | None) -> None:
    """Refuse a goal that cannot be read, before anything is loaded.

    Raises:
        ConfigError: ``--goal-name`` together with ``--goal none``.
        DataError: no such goal file.
    """
    from rewardsteer.errors import ConfigError
    from rewardsteer.goals.places import goal_file

    if goal == "none" and name is not None:
        raise ConfigError(f"--goal none and --goal-name {name} contradict each other.")
    if goal is not None and goal != "none":
        goal_file(Path(goal))


def find_goal(scorer: "Described", folder: Path, goal: str | None, name: str | None) -> Any:
    """The goal state selected by the options, by default the reward model's own; None where it has
    none or with 'none'. The options must have passed `check_goal_options`.

    Raises:
        DataError: no such goal.
        MismatchError: the goal belongs to another reward model.
    """
    from rewardsteer.goals.files import check_goal, load_goal
    from rewardsteer.models.checkpoint import GOAL_STATES

    if goal == "none":
        return None
    if goal is None and name is None and not (folder / GOAL_STATES).exists():
        return None
    state = load_goal(Path(goal) if goal else folder, name)
    check_goal(state, scorer)
    return state
