"""PARGS: candidates re-ranked by a reward model of partial sequences."""

from typing import Literal

from rewardsteer.decoding.guides.base import LogitsGuide


class Pargs(LogitsGuide):
    """score(v) = log p_LM(v) + w · r(x, y∘v) over the policy's top_k, r trained with Bradley-Terry
    on pairs of prefixes of equal length."""

    asks: Literal["candidates"] = "candidates"
    needs = "scalar"
    trained_on = ("partial",)
    default_for = "partial"
