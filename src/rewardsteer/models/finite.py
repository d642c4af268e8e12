"""Rewards that must be numbers."""

from collections.abc import Sequence

import numpy as np

from rewardsteer.errors import NonFiniteError


def require_finite(
    rewards: np.ndarray, numbers: Sequence[int] | None = None, *, tokens_of: int | None = None
) -> None:
    """Raise `NonFiniteError` naming the first reward that is no finite number.

    Args:
        rewards: of rows, or of the tokens of one.
        numbers: the rows' own numbers; None: they count from 1.
        tokens_of: number of the row whose tokens these are.
    """
    wrong = np.flatnonzero(~np.isfinite(rewards))
    if not len(wrong):
        return
    at = int(wrong[0])
    where = f"row {at + 1 if numbers is None else numbers[at]}"
    if tokens_of is not None:
        where = f"token {at + 1} of row {tokens_of}"
    raise NonFiniteError(
        f"The reward of {where} is {rewards[at]}; expected a finite number. The checkpoint may be "
        "damaged, or its values overflow in this dtype: try float32."
    )
