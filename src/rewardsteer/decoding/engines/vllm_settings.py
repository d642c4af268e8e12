"""Settings of reward models for vLLM: in its own configuration at the start, and per request.

    --hf-overrides '{"architectures": ["RewardGuidedForCausalLM"],
                     "rewardsteer": {"models": ["runs/reward"], "weight": 1.0}}'

vLLM hands the configuration to its front end, which checks requests, and to its workers, which hold
the models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rewardsteer.configuration import Config
from rewardsteer.decoding.config import MOST_WEIGHT
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import CheckpointCard, read_card
from rewardsteer.models.places import locate
from rewardsteer.registry import nearest

ARCHITECTURE = "RewardGuidedForCausalLM"
# Key of our part in the policy's configuration.
ENTRY = "rewardsteer"
_PREFIX = "reward_"
_NAMES = ("reward_weight", "reward_model", "reward_name")


class GuideSettings(Config):
    """The part ``rewardsteer`` of the policy's configuration.

    Attributes:
        models: folders of reward models; requests name them by their last part.
        weight: of requests that name none; 0: they get the policy alone.
        policy: architectures of the policy; filled in by the plugin.
    """

    models: list[str] = Field(min_length=1)
    weight: float = Field(default=0.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT)
    policy: list[str] = Field(default_factory=list)

    @property
    def folders(self) -> dict[str, Path]:
        """The folders by name, in the order given; raises `ConfigError` where two share a name."""
        named = {Path(one).resolve().name: locate(one) for one in self.models}
        if len(named) < len(self.models):
            raise ConfigError(
                "Requests name reward models by the last part of their folders, so these must "
                f"differ, got {', '.join(self.models)}."
            )
        return named


def read_settings(hf_config: Any) -> GuideSettings:
    """The settings in a policy's configuration; raises `ConfigError` where they are wrong."""
    given = getattr(hf_config, ENTRY, None)
    try:
        return GuideSettings.model_validate(given)
    except ValidationError as error:
        raise ConfigError(
            f"The architecture {ARCHITECTURE} needs hf_overrides with '{ENTRY}': "
            f'{{"models": [folders of reward models], "weight": number}}, got {given!r}.'
        ) from error


def guided_by(models: Iterable[str | Path], weight: float = 0.0) -> dict[str, Any]:
    """``hf_overrides`` with which vLLM loads a policy together with reward models.

    Args:
        models: folders of reward models with vocabulary heads.
        weight: of requests that name none.
    """
    part = GuideSettings(models=[str(one) for one in models], weight=weight)
    return {"architectures": [ARCHITECTURE], ENTRY: part.model_dump(exclude={"policy"})}


def vocabulary_card(name: str, folder: Path) -> CheckpointCard:
    """The card of a reward model that can guide inside vLLM.

    Raises:
        MismatchError: it has another head.
    """
    card = read_card(folder)
    if not card.head.head_class.gives_next_token:
        raise MismatchError(
            f"vLLM guides by reward models with a vocabulary head, but {name!r} has a scalar head, "
            "which is asked about single candidates; train or distil a vocabulary head for farma "
            "or genarm, or use the engine transformers (--engine)."
        )
    if card.head.layers != "linear":
        raise MismatchError(
            f"vLLM reads rewards as logits, and the head of {name!r} has layers="
            f"{card.head.layers}; fold it with 'rewardsteer import {name} OUT --fold', or use "
            "the engine transformers (--engine)."
        )
    return card


@dataclass(eq=False)
class RewardParams:
    """The guidance that a request asks for.

    Attributes:
        model: name of the reward model.
        weight: w, in logits per reward unit; not 0.
        name: of the request, for messages; "" when it has none.
        lost: whether guidance of the request has stopped.
    """

    model: str
    weight: float
    name: str = ""
    lost: bool = False


def parse_reward_params(
    extra_args: Mapping[str, Any] | None, models: Iterable[str], weight: float = 0.0
) -> RewardParams | None:
    """The guidance that a request asks for; None if its weight is 0.

    Args:
        extra_args: ``reward_weight`` (a number), ``reward_model`` (default: the first),
            ``reward_name`` (text). Names without ``reward_`` are ignored.
        models: names of the reward models.
        weight: of requests that name none.

    Raises:
        ConfigError: an unknown name or a bad value.
    """
    given = {name: v for name, v in (extra_args or {}).items() if name.startswith(_PREFIX)}
    unknown, models = sorted(given.keys() - set(_NAMES)), list(models)
    if unknown:
        raise ConfigError(
            f"Unknown argument {unknown[0]!r}.{nearest(unknown[0], list(_NAMES))} Known: "
            f"{', '.join(_NAMES)}."
        )
    asked = given.get("reward_weight", weight)
    if not isinstance(asked, int | float) or isinstance(asked, bool) or not (
        abs(asked) <= MOST_WEIGHT
    ):
        raise ConfigError(
            f"'reward_weight' must be a finite number, got {asked!r}; at most ±{MOST_WEIGHT:g}."
        )
    model, name = given.get("reward_model", models[0]), given.get("reward_name", "")
    if model not in models:
        raise ConfigError(
            f"'reward_model' must be one of {', '.join(map(repr, models))}, got {model!r}."
        )
    if not isinstance(name, str):
        raise ConfigError(f"'reward_name' must be text, got {name!r}.")
    return RewardParams(model, float(asked), name) if asked else None
