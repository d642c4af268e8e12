"""Whether policy and reward models fit, before vLLM loads them."""

from typing import TYPE_CHECKING

from transformers import AutoConfig

from rewardsteer.decoding.engines.vllm_settings import GuideSettings, vocabulary_card
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, load_tokenizer
from rewardsteer.models.compatibility import check_vocabulary
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
