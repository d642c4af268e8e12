"""What guided vLLM can do. Needs no vLLM."""

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.genarm import GenArm
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import ConfigError
from rewardsteer.models.compatibility import members

# The guides whose rules the model in vLLM has.
_RULES = (Plain, Farma, GenArm)


def check_supported(method: Method, config: DecodingConfig) -> None:
    """Raise `ConfigError` unless vLLM can do this; see `check_abilities` for strategies."""
    kind = METHODS.get(config.method)
    controls = (config.weight_end, config.target_kl, config.max_kl)
    wanting = {
        f"the method {config.method!r}": issubclass(kind, LogitsGuide) and kind not in _RULES,
        "several reward models": len(members(method.scorer)) > 1,
        "a schedule or KL of the weight": any(control is not None for control in controls),
        "gates": config.gate != "always",
        "a power of the policy": config.policy_power != 1,
        "drafts of this package (it has its own)": config.draft != "none",
    }
    for what, wanted in wanting.items():
        if wanted:
            raise ConfigError(
                f"The vLLM engine does not know {what}; use the engine transformers (--engine)."
            )
