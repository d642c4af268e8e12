"""Controlled decoding: candidates re-ranked by a value function (arXiv 2310.17022)."""

from typing import Literal

from rewardsteer.decoding.guides.base import LogitsGuide


class Cd(LogitsGuide):
    """score(v) = log p_LM(v) + w · V(x, y∘v) over the policy's top_k.

    The rule is that of ARGS and PARGS, letter by letter. What differs is the head's meaning: V is
    the value of a prefix, what the response that it begins is expected to be worth, so the head
    must have learned something of every token. A head trained on whole responses alone (ARGS) knows
    no value of a prefix. One trained on pairs of prefixes (PARGS) is taken for a value here, and
    one whose states were drawn to those of good endings (``goal_contrastive``) too.
    """

    asks: Literal["candidates"] = "candidates"
    needs = "scalar"
    trained_on = ("partial", "goal_contrastive")
