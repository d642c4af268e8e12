"""PARGS: candidates re-ranked by a reward model of partial sequences."""

from rewardsteer.decoding.candidates import CandidateGuide
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Rewarder


class Pargs(CandidateGuide):
    """score(v) = log p_LM(v) + w · r(x, y∘v) over the policy's top_k, r trained with Bradley-Terry
    on pairs of prefixes of equal length.

    Raises:
        MismatchError: no reward model, one without a scalar head, or one trained on something else.
        ConfigError: top_k is 0.
    """

    trained_on = ("partial",)
    default_for = "partial"

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__("pargs", scorer, config)
