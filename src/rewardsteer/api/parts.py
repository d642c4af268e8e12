"""Parts of a `Steerer` from its arguments: models by folder or name, or loaded ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardsteer.api.reward_model import RewardModel, as_reward_model
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError
from rewardsteer.models.attention import warn_of_caps


def reward_models_of(given: Any) -> list[RewardModel]:
    """A list of reward models, from one, several or None."""
    if given is None:
        return []
    several = given if isinstance(given, list | tuple) else [given]
    return [as_reward_model(one) for one in several]


def scorer_of(
    models: Sequence[RewardModel], weights: Sequence[float] | None, config: DecodingConfig
) -> Any:
    """The scorer for a method: that of one reward model, or the weighted sum of several."""
    from rewardsteer.decoding.config import check_weights
    from rewardsteer.decoding.ensemble import combined

    if weights is not None:
        check_weights(len(models), weights)
    own = list(weights or [1.0] * len(models))
    return combined([one.scorer for one in models], own, config)


def tokenizer_of(policy: Any, engine: str, tokenizer: Any) -> Any:
    """The policy's tokenizer: the given one, or that of the policy's folder or hub name.

    Raises:
        ConfigError: a loaded policy without a tokenizer, or with another engine than transformers.
    """
    from rewardsteer.models.checkpoint import load_tokenizer

    if isinstance(tokenizer, str | Path):
        return load_tokenizer(str(tokenizer))
    if engine == "openai":
        return tokenizer
    if isinstance(policy, str | Path):
        return tokenizer or load_tokenizer(str(policy))
    if engine != "transformers" or tokenizer is None:
        raise ConfigError(
            "A loaded policy is for the engine 'transformers' and needs its tokenizer; pass "
            "tokenizer=, or the policy's folder or name."
        )
    return tokenizer


def load_policy_of(policy: Any, engine: str, device: str, dtype: Any) -> Any:
    """The policy for the engine: loaded, or its name where the engine loads it itself."""
    from rewardsteer.decoding.policy import load_policy

    if not isinstance(policy, str | Path):
        warn_of_caps(policy)
        return policy
    if engine != "transformers":
        return str(policy)
    return load_policy(policy, device=device, dtype=dtype)
