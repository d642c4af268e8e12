"""Loading of reward models and goal states for ``rewardsteer generate``."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rewardsteer.cli.engines import EngineOptions
from rewardsteer.decoding.engines.choice import EngineChoice

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.default_method import Choice
    from rewardsteer.goals.goal_state import GoalState


# Kinds whose card (or its equivalent) can be read without loading the weights.
_WITH_CARDS = ("rewardsteer", "classifier", "adapter")


class Parts(NamedTuple):
    """Parts of a method besides its settings: the reward model, the gate's reward model, the goal
    state, and the draft model's folder or name."""

    scorer: Any
    scout: Any
    goal: "GoalState | None"
    draft_model: str | None


def load_goal_state(
    source: Path | None, name: str | None, config: "DecodingConfig", reward_model: str | None
) -> "GoalState | None":
    """The goal state for a method that needs one, or that accepts a given one; None without a
    source of goal states.

    Raises:
        ConfigError: a goal was given to a method that uses none.
    """
    from rewardsteer.decoding.fitting import goal_methods
    from rewardsteer.decoding.methods import accepts_goal, needs_goal
    from rewardsteer.errors import ConfigError
    from rewardsteer.goals.files import load_goal
    from rewardsteer.models.checkpoint import read_card

    if not needs_goal(config) and not (accepts_goal(config.method) and (source or name)):
        if source or name:
            raise ConfigError(
                f"The method {config.method!r} uses no goal state; leave out --goal and "
                f"--goal-name, or use the method {goal_methods()}."
            )
        return None
    if source is None and reward_model is not None:
        # A missing folder is reported as missing, not as a folder without goals.
        read_card(Path(reward_model))
    where = source or (None if reward_model is None else Path(reward_model))
    return None if where is None else load_goal(where, name)


def _kind_of(reward_model: str, kind: str | None) -> str:
    """The name of the reward model's kind; ``kind`` where that is given."""
    from rewardsteer.models.kinds.recognition import find_kind

    return find_kind(reward_model, kind=kind)[0]


def choose_method(
    named: str | None, reward_model: str | None, kind: str | None, engine: str | None = None
) -> tuple[str, str]:
    """The named method, else the one that the reward model was trained for (with an engine, one
    that it can run); and a line with the reason, "" where the method was named."""
    from rewardsteer.decoding.engines.registry import ABILITIES

    if named is not None:
        return named, ""
    choice = _default_method(reward_model, kind, ABILITIES[engine] if engine else None)
    return choice.name, choice.told("choose another with --method")


def _default_method(
    reward_model: str | None, kind: str | None, abilities: Collection[str] | None
) -> "Choice":
    # A reward model from elsewhere does not record the method that it was trained for.
    from rewardsteer.decoding import default_method
    from rewardsteer.models.checkpoint import read_card
    from rewardsteer.models.kinds import KINDS

    if reward_model is None:
        return default_method.WITHOUT_REWARD_MODEL
    found = _kind_of(reward_model, kind)
    if found in _WITH_CARDS:
        return default_method.default_method(read_card(Path(reward_model)), abilities)
    return default_method.foreign_method(found, compares=KINDS.get(found).compares)


def load_reward_models(
    folders: list[str], weights: list[float], config: "DecodingConfig", goal: "GoalState | None",
    choice: EngineChoice, running: EngineOptions, template: "Template | None", *,
    share_backbone: bool, of_kind: dict[str, Any],
) -> Any:
    """The reward model, or several combined into one, after the checks that need only their cards;
    None if none is given. With a shared backbone it uses the policy's weights. If it runs inside
    the engine, only its folder is read. ``of_kind`` has the kind, or None, and its options."""
    from types import SimpleNamespace

    from rewardsteer.decoding.ensemble import combined
    from rewardsteer.decoding.folder_scorer import FolderScorer
    from rewardsteer.decoding.generate import build_method
    from rewardsteer.decoding.methods import compares, is_guide, judges_whole
    from rewardsteer.devices import parse_dtype
    from rewardsteer.errors import ConfigError
    from rewardsteer.models.kinds import load_scorer

    if not folders:
        build_method(config, None, goal)
        return None
    inside = choice.kind.holds_guides
    own = all(_kind_of(folder, of_kind["kind"]) in _WITH_CARDS for folder in folders)
    if not own and (share_backbone or (inside and is_guide(config.method))):
        raise ConfigError(
            "The engine vllm and --share-backbone load reward models of rewardsteer, adapters and "
            "one-label classifiers; make such a folder with 'rewardsteer import', or take the "
            "engine transformers."
        )
    stated = [FolderScorer(Path(folder), template) for folder in folders] if own else []
    # The card is enough to build a method, so mismatches show before weights load. A goal is
    # compared with the weights, so a method with a goal is built after they load.
    if goal is None and own:
        several = SimpleNamespace(members=stated)
        # All reward models score whole responses together, so each one must fit the method.
        for one in stated if judges_whole(config.method) else [several]:
            build_method(config, one)
    if inside and is_guide(config.method):
        return combined(stated, weights, config)
    if share_backbone:
        from rewardsteer.decoding.policy import load_policy
        from rewardsteer.models.policy_states import sharing_scorer

        assert choice.source is not None, "engines of this process have a policy"
        policy = load_policy(choice.source, **choice.options)
        return sharing_scorer(policy, choice.source, Path(folders[0]))
    # An engine that reserves its device's memory loads first, and the reward model after it.
    place = running.reward_device or ("cpu" if inside else choice.options.get("device", "auto"))
    return combined([
        load_scorer(
            folder, device=place, dtype=parse_dtype(running.reward_dtype), template=template,
            pairs=compares(config.method), **of_kind,
        )
        for folder in folders
    ], weights, config)


def load_gate_model(
    folder: Path | None, choice: EngineChoice, running: EngineOptions
) -> Any:
    """The reward model that a gate evaluates at every token; None if none is given."""
    from rewardsteer.devices import parse_dtype
    from rewardsteer.models.kinds import load_scorer

    if folder is None:
        return None
    place = running.reward_device or choice.options.get("device", "auto")
    return load_scorer(folder, device=place, dtype=parse_dtype(running.reward_dtype))


def check_sharing(folders: list[str], running: EngineOptions) -> None:
    """Raise `ConfigError` where policy and reward model cannot share weights."""
    from rewardsteer.errors import ConfigError

    if len(folders) != 1 or running.engine != "transformers" or any(
        (running.reward_device, running.reward_dtype, running.device_map)
    ):
        raise ConfigError(
            "--share-backbone takes one --reward-model, the transformers engine and no "
            "--reward-device, --reward-dtype or --device-map: the weights are the policy's."
        )
