"""What a `Steerer` is made of, from what callers give: models by folder or name, or loaded ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardsteer.api.reward_model import RewardModel, as_reward_model
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.devices import parse_dtype
from rewardsteer.errors import ConfigError


def reward_models_of(given: Any) -> list[RewardModel]:
    """The reward models of one, several or none."""
    if given is None:
        return []
    several = given if isinstance(given, list | tuple) else [given]
    return [as_reward_model(one) for one in several]


def scorer_of(
    models: Sequence[RewardModel], weights: Sequence[float] | None, config: DecodingConfig
) -> Any:
    """The scorer of a method: that of one reward model, or one of several together."""
    from rewardsteer.decoding.config import check_weights
    from rewardsteer.decoding.ensemble import combined

    if weights is not None:
        check_weights(len(models), weights)
    own = list(weights or [1.0] * len(models))
    return combined([one.scorer for one in models], own, config)


def load_policy_of(
    policy: Any, engine: str, tokenizer: Any, device: str, dtype: Any
) -> tuple[Any, Any]:
    """The policy as the engine takes it, and its tokenizer."""
    from rewardsteer.decoding.policy import load_policy
    from rewardsteer.models.checkpoint import load_tokenizer

    named = isinstance(policy, str | Path)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(str(tokenizer))
    if engine == "openai":
        return (str(policy) if policy is not None else None), tokenizer
    if not named:
        if engine != "transformers" or tokenizer is None:
            raise ConfigError(
                "A loaded policy is for the engine 'transformers' and needs its tokenizer; pass "
                "tokenizer=, or the policy's folder or name."
            )
        return policy, tokenizer
    tokenizer = tokenizer or load_tokenizer(str(policy))
    if engine == "vllm":
        return str(policy), tokenizer
    return load_policy(policy, device=device, dtype=parse_dtype(dtype)), tokenizer


def load_drafter(
    given: Any, policy_tokenizer: Any, engine: str, device: str, dtype: Any
) -> Any:
    """A second policy that drafts, in this process; a loaded one has the policy's tokenizer.

    Raises:
        ConfigError: another engine than transformers.
        MismatchError: it has other tokens than the policy.
    """
    from rewardsteer.decoding.fitting import check_drafter_tokens
    from rewardsteer.decoding.policy import load_policy
    from rewardsteer.models.checkpoint import load_tokenizer

    if engine != "transformers":
        raise ConfigError(
            f"A second policy that drafts is for the engine 'transformers', got {engine!r}; leave "
            "draft_model out."
        )
    if not isinstance(given, str | Path):
        return given
    check_drafter_tokens(policy_tokenizer, load_tokenizer(str(given)))
    return load_policy(given, device=device, dtype=parse_dtype(dtype))
