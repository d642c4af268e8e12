"""Settings of the methods of a comparison, from a YAML file or from names; sweeps over weights."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rewardsteer.configuration import load_config, read_yaml
from rewardsteer.decoding.config import DecodingConfig, check_weights
from rewardsteer.decoding.fitting import goal_methods
from rewardsteer.decoding.methods import (
    METHODS,
    accepts_goal,
    has_weight,
    needs_goal,
    takes_no_reward_model,
    unused,
)
from rewardsteer.errors import ConfigError


class MethodConfig(DecodingConfig):
    """How to decode, and with which models.

    Attributes:
        reward_model: folder of the reward model that guides; several for a method that takes
            several.
        reward_weights: one for each of several reward models; None: 1.
        goal: goal states, for a method that needs one; None: the reward model's own.
        draft_model: folder or hub name of a second policy, for a method that needs one.
        gate_model: folder of a reward model that decides for the gate ``kl``; None: the one that
            guides.
    """

    reward_model: str | list[str] | None = None
    reward_weights: list[float] | None = None
    goal: str | None = None
    draft_model: str | None = None
    gate_model: str | None = None

    @property
    def folders(self) -> list[str]:
        """Folders of the reward models that guide."""
        named = self.reward_model
        return named if isinstance(named, list) else [named] if named else []

    @property
    def scorers(self) -> list[str]:
        """Folders of all reward models, that of the gate included."""
        return [*self.folders, *([] if self.gate_model is None else [self.gate_model])]

    @property
    def weights(self) -> list[float]:
        """Weights of the reward models that guide."""
        return self.reward_weights or [1.0] * len(self.folders)

    @property
    def goal_place(self) -> str | None:
        """Path of the goal state; None for a method that needs none."""
        if not needs_goal(self):
            return self.goal if accepts_goal(self.method) else None
        return self.goal or next(iter(self.folders), None)


def read_methods(methods: str) -> dict[str, MethodConfig]:
    """Read settings by label.

    Args:
        methods: a YAML file (label → settings), or names with their reward models, which get
            default settings: ``none,best_of_n=FOLDER,farma=FOLDER``.

    Raises:
        ConfigError: an unreadable file, no method, one named twice or without a reward model that
            it needs, an unknown setting, or one that its method does not use.
    """
    rows: dict[str, Any] = {}
    if methods.endswith((".yaml", ".yml")):
        rows = read_yaml(Path(methods))
    else:
        for item in methods.split(","):
            name, _, folder = item.strip().partition("=")
            if name in rows:
                raise ConfigError(
                    f"The methods (--methods) name {name!r} twice; give a YAML file with a label "
                    "for each."
                )
            rows[name] = {"method": name, "reward_model": folder or None}
    if not rows:
        raise ConfigError(f"{methods} names no method; expected 'label: {{method: …}}' entries.")
    return {str(label): _read(str(label), values) for label, values in rows.items()}


def _read(label: str, values: Any) -> MethodConfig:
    if not isinstance(values, dict):
        raise ConfigError(f"The methods: expected settings under {label!r}, got {values!r}.")
    try:
        config = load_config(MethodConfig, values)
    except ConfigError as error:
        raise ConfigError(f"The method {label!r}: {error}") from error
    METHODS.check(config.method)
    _check_used(label, config, values)
    if not config.folders and not takes_no_reward_model(config.method):
        raise ConfigError(
            f"The method {config.method!r} of {label!r} needs a reward model: write "
            f"{config.method}=FOLDER (--methods), or 'reward_model: FOLDER' in its file."
        )
    if config.reward_weights is not None and len(config.folders) < 2:
        raise ConfigError(
            f"The 'reward_weights' of {label!r} are for several reward models, got "
            f"{len(config.folders)}; use 'weight'."
        )
    check_weights(len(config.folders), config.weights)
    return config


def _check_used(label: str, config: MethodConfig, given: Collection[str]) -> None:
    """Raise `ConfigError` for given settings that the method does not use."""
    wrong = unused(config.method, given)
    if config.folders and takes_no_reward_model(config.method):
        wrong = "reward_model", "a method that is guided"
    elif config.goal is not None and not accepts_goal(config.method):
        wrong = "goal", f"the method {goal_methods()}"
    elif config.gate_model is not None and config.gate != "kl":
        wrong = "gate_model", "'gate: kl'"
    if wrong is not None:
        raise ConfigError(
            f"The setting {wrong[0]!r} of {label!r} is not used by the method {config.method!r}; "
            f"leave it out, or use {wrong[1]}."
        )


def sweep_weights(
    settings: Mapping[str, MethodConfig], weights: str
) -> tuple[dict[str, MethodConfig], dict[str, str]]:
    """Repeat guided methods once per weight; unguided ones stay as they are.

    Returns:
        settings by label, and for swept methods the original label by the new one.

    Raises:
        ConfigError: a weight is no finite number, or no method has one.
    """
    try:
        values = [float(part) for part in weights.split(",")]
    except ValueError as error:
        raise ConfigError(f"Expected weights as 0.5,1,2 (--weights), got {weights!r}.") from error
    swept: dict[str, MethodConfig] = {}
    sweeps = {}
    for label, config in settings.items():
        if not has_weight(config.method):
            swept[label] = config
            continue
        for value in values:
            one = f"{label} w={value:g}"
            swept[one] = load_config(MethodConfig, config.model_dump() | {"weight": value})
            sweeps[one] = label
    if not sweeps:
        raise ConfigError(
            f"None of the methods {', '.join(settings)} has a weight; leave the weights out "
            "(--weights)."
        )
    return swept, sweeps
