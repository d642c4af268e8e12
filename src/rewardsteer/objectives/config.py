"""Settings of a loss. No torch here."""

from typing import Annotated, Any

from pydantic import Field

from rewardsteer.configuration import Config


class TermConfig(Config):
    """One term of a loss: an objective by its name, its weight in the sum, and its options."""

    name: str
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
