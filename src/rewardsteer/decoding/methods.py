"""The decoding methods: guides, which act on next-token scores, and strategies, which act around an
engine. Each is one file; none imports another.

A guide is called as ``method(scorer, config)``, scorer None when the user gave no reward model; it
takes several as one, a `rewardsteer.decoding.ensemble.RewardEnsemble`. A strategy is called
likewise, one with ``wants_goal`` or ``takes_goal`` as ``method(scorer, config, goal)``. A method's
class declares the reward model that it needs, see `rewardsteer.decoding.fitting`. A method of
another package is named ``package.module:Class``.
"""

from collections.abc import Collection
from typing import Any

from rewardsteer.errors import ConfigError
from rewardsteer.registry import Registry

# Methods that have another name now, and how it is written.
_RENAMED = {"goal_beam": "'beam' with a goal state (--goal)"}


class _Methods(Registry):
    def check(self, name: str) -> None:
        """Raise `ConfigError` on an unknown name; for a renamed method it has the new name."""
        if name in _RENAMED:
            raise ConfigError(f"The decoding method {name!r} is now {_RENAMED[name]}.")
        super().check(name)


_GUIDES, _STRATEGIES = "rewardsteer.decoding.guides", "rewardsteer.decoding.strategies"
METHODS = _Methods(
    "decoding method",
    {
        "none": f"{_GUIDES}.none:Plain",
        "farma": f"{_GUIDES}.farma:Farma",
        "args": f"{_GUIDES}.args:Args",
        "pargs": f"{_GUIDES}.pargs:Pargs",
        "genarm": f"{_GUIDES}.genarm:GenArm",
        "cd": f"{_GUIDES}.cd:Cd",
        "q_sharp": f"{_GUIDES}.q_sharp:QSharp",
        "adaptive_best_of_n": f"{_STRATEGIES}.adaptive_best_of_n:AdaptiveBestOfN",
        "beam": f"{_STRATEGIES}.beam:Beam",
        "best_of_n": f"{_STRATEGIES}.best_of_n:BestOfN",
        "cards": f"{_STRATEGIES}.cards:Cards",
        "dvts": f"{_STRATEGIES}.dvts:Dvts",
        "goal_filter": f"{_STRATEGIES}.goal_filter:GoalFilter",
        "gsi": f"{_STRATEGIES}.gsi:Gsi",
        "majority_vote": f"{_STRATEGIES}.majority_vote:MajorityVote",
        "particle": f"{_STRATEGIES}.particle:Particle",
        "reward_vote": f"{_STRATEGIES}.reward_vote:RewardVote",
        "rsd": f"{_STRATEGIES}.rsd:Rsd",
        "soft_best_of_n": f"{_STRATEGIES}.soft_best_of_n:SoftBestOfN",
        "speculative_rejection": f"{_STRATEGIES}.speculative_rejection:SpeculativeRejection",
        "tournament": f"{_STRATEGIES}.tournament:Tournament",
    },
    classes=[f"{_GUIDES}.base:LogitsGuide", f"{_STRATEGIES}.base:Strategy"],
)

# The method for OpenAI's field ``best_of``.
BEST_OF = "best_of_n"
# The same for a model that compares two responses.
BEST_OF_PAIRS = "tournament"
# Settings of how strongly rewards act token by token, for methods that add them to logits.
CONTROLS = (
    "weight_schedule", "weight_end", "target_kl", "max_kl", "policy_power", "gate",
    "gate_threshold", "gate_share",
)
# Settings of strategies; a strategy lists those that it reads in ``uses``.
OF_STRATEGIES = frozenset({
    "n", "choice_temperature", "draw_cost", "length_control", "beam", "branches", "step_value",
    "value_noise", "step_separator", "step_tokens", "max_steps", "accept_reward",
    "particle_potential", "particle_answer", "resample_below", "entropy_threshold", "segment_min",
    "segment_tokens", "reward_target", "reward_share", "acceptance", "max_rejections",
    "reject_share", "decision_tokens", "drop_rule", "drop_threshold", "drop_start", "drop_patience",
    "calibration", "vote_stop", "vote_window", "vote_confidence", "comparisons",
})
# Methods without a reward model, listed to spare an import that takes seconds.
_UNGUIDED = ("none", "majority_vote")


def takes_no_reward_model(name: str) -> bool:
    """Whether a method uses no reward model; False for an unknown name."""
    if name in METHODS.names():
        return name in _UNGUIDED
    return name in METHODS and METHODS.get(name).needs == "none"


def is_guide(name: str) -> bool:
    """Whether a method acts on next-token scores; raises `ConfigError` on an unknown name."""
    from rewardsteer.decoding.guides.base import LogitsGuide

    return issubclass(METHODS.get(name), LogitsGuide)


def wants_goal(name: str) -> bool:
    """Whether a method needs a goal state; raises `ConfigError` on an unknown name."""
    return bool(METHODS.get(name).wants_goal)


def needs_goal(config: Any) -> bool:
    """Whether a method needs a goal state by its settings.

    Args:
        config: a `rewardsteer.decoding.config.DecodingConfig`.
    """
    name = config.method
    return wants_goal(name) or (accepts_goal(name) and config.step_value == "goal")


def wants_drafter(name: str) -> bool:
    """Whether a method needs a second policy; raises `ConfigError` on an unknown name."""
    return bool(METHODS.get(name).wants_drafter)


def accepts_goal(name: str) -> bool:
    """Whether a method may be guided by a goal state; raises `ConfigError` on an unknown name."""
    kind = METHODS.get(name)
    return bool(kind.wants_goal or kind.takes_goal)


def adds_rewards(name: str) -> bool:
    """Whether a method adds weighted rewards to next-token logits, and so takes several reward
    models, a schedule or a target KL; raises `ConfigError` on an unknown name."""
    return bool(METHODS.get(name).several_models)


def judges_whole(name: str) -> bool:
    """Whether a method scores whole texts, so that several reward models of any kind can judge
    together; raises `ConfigError` on an unknown name."""
    kind = METHODS.get(name)
    return bool(kind.judges_texts) and not (kind.wants_goal or kind.compares)


def compares(name: str) -> bool:
    """Whether a method takes a model that compares two responses, and no reward model; raises
    `ConfigError` on an unknown name."""
    return bool(METHODS.get(name).compares)


def asks_candidates(name: str) -> bool:
    """Whether a method asks about the policy's ``top_k`` best tokens; False for an unknown name."""
    return name in METHODS and METHODS.get(name).asks == "candidates"


def has_weight(name: str) -> bool:
    """Whether the setting ``weight`` means something to a method; raises `ConfigError` on an
    unknown name."""
    return bool(METHODS.get(name).has_weight)


def unused(name: str, given: Collection[str]) -> tuple[str, str] | None:
    """The first given setting that a method does not use, and the methods that use it, as a
    sentence lists them; None if there is none. Only ``weight``, `CONTROLS` and `OF_STRATEGIES` are
    checked; a method of another package may use any of the last."""
    from rewardsteer.decoding.fitting import listed

    for setting in given:
        if not _uses(name, setting):
            return setting, listed([one for one in METHODS.names() if _uses(one, setting)])
    return None


def _uses(name: str, setting: str) -> bool:
    if setting == "weight":
        return has_weight(name)
    if setting in CONTROLS:
        return adds_rewards(name)
    if setting in OF_STRATEGIES and name in METHODS.names():
        return setting in METHODS.get(name).uses
    return True


def is_best_of_n(name: str) -> bool:
    """Whether a method keeps the best of ``n`` independent samples of the policy; raises
    `ConfigError` on an unknown name."""
    return bool(getattr(METHODS.get(name), "is_best_of_n", False))
