"""PARGS: candidates re-ranked by a reward model of partial sequences."""

import logging

from rewardsteer.decoding.candidates import CandidateGuide
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Rewarder
from rewardsteer.errors import MismatchError
from rewardsteer.models.compatibility import check_head

logger = logging.getLogger(__name__)


class Pargs(CandidateGuide):
    """score(v) = log p_LM(v) + w · r(x, y∘v) over the policy's top_k, r trained with Bradley-Terry
    on pairs of prefixes of equal length.

    Raises:
        MismatchError: no reward model, one without a scalar head, or one trained on something else.
        ConfigError: top_k is 0.
    """

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        check_head("pargs", scorer, "scalar")
        objective = getattr(scorer, "objective", "")
        name = getattr(scorer, "name", "") or "the given one"
        if not objective:
            logger.warning(
                "The reward model does not say what it was trained on; pargs needs one trained "
                "with the objective 'partial'."
            )
        elif "partial" not in objective:
            raise MismatchError(
                "The method 'pargs' needs a reward model trained on partial responses (objective "
                f"'partial'), but {name} was trained with {objective!r}; use it with args or "
                "best_of_n, or train one with 'partial'."
            )
        super().__init__("pargs", scorer, config)
