"""What guided vLLM can do, and whether policy and reward models fit. Needs no vLLM."""

from typing import TYPE_CHECKING

from transformers import AutoConfig

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.vllm_settings import GuideSettings, vocabulary_card
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.genarm import GenArm
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, load_tokenizer
from rewardsteer.models.compatibility import check_vocabulary, members
from rewardsteer.models.limits import position_limit

if TYPE_CHECKING:
    from vllm.config import ModelConfig


def check(settings: GuideSettings, model: "ModelConfig") -> None:
    """Check the reward models against what vLLM is to do.

    Raises:
        CheckpointError: one is missing.
        MismatchError: one has another head, or another tokenizer than the policy.
        ConfigError: rows may become longer than it can read, or have no token ids.
    """
    if model.enable_prompt_embeds:
        raise ConfigError(
            "A reward model reads token ids, which prompt embeddings do not have; leave out "
            "enable_prompt_embeds."
        )
    tokenizer = load_tokenizer(model.tokenizer)
    for name, folder in settings.folders.items():
        vocabulary_card(name, folder)
        check_vocabulary(tokenizer, load_tokenizer(folder))
        if (folder / ADAPTER_CONFIG).exists():
            continue
        limit = position_limit(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        if limit is not None and model.max_model_len > limit:
            raise ConfigError(
                f"vLLM may let rows grow to {model.max_model_len} tokens, but the reward model "
                f"{name!r} reads at most {limit}; start it with max_model_len={limit}."
            )


# The guides whose rules the model in vLLM has.
RULES = (Plain, Farma, GenArm)


def check_supported(method: Method, config: DecodingConfig) -> None:
    """Raise `ConfigError` unless vLLM can do this; see `check_abilities` for strategies."""
    kind = METHODS.get(config.method)
    controls = (config.weight_end, config.target_kl, config.max_kl)
    wanting = {
        f"the method {config.method!r}": issubclass(kind, LogitsGuide) and kind not in RULES,
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
