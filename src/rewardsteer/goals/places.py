"""The file of goal states; imports nothing that takes seconds."""

import os
from pathlib import Path

from rewardsteer.errors import DataError
from rewardsteer.models.checkpoint import GOAL_STATES


def goal_file(source: Path) -> Path:
    """The file of goal states that ``source`` is, or that the folder ``source`` holds.

    Raises:
        DataError: there is none, or it is an array in the published form.
    """
    place = source / GOAL_STATES if source.is_dir() else source
    if not place.exists():
        raise DataError(
            f"Expected goal states at {place}, there are none; make them with "
            "'rewardsteer goal-state'."
        )
    if not os.access(place, os.R_OK):
        raise DataError(
            f"The goal states {place} cannot be read: there is no permission; change it, or choose "
            "others."
        )
    if place.suffix in (".npy", ".npz"):
        raise DataError(
            f"{place} is an array; a goal file is the {GOAL_STATES} that 'rewardsteer goal-state' "
            f"writes. Make one of it with 'rewardsteer goal-state --reward-model MODEL "
            f"--import-npy {place} --out FOLDER'; then give FOLDER as the goal."
        )
    return place
