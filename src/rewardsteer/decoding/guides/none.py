"""The policy alone."""

from typing import Literal

from rewardsteer.decoding.guides.base import LogitsGuide


class Plain(LogitsGuide):
    """Changes nothing; a reward model, if given, is not run."""

    asks: Literal["nothing"] = "nothing"
    needs = "none"
    has_weight = False
    several_models = False
