"""The decoding methods, one file each; none imports another.

A method is called as ``method(scorer, config)``, scorer None when the user gave no reward model; a
token guide takes several as one, a `rewardsteer.decoding.ensemble.RewardEnsemble`.
What reward model it needs its class declares, see `rewardsteer.decoding.fitting`.
One whose class attribute ``wants_goal`` is true is called as ``method(scorer, config, goal)``.
"""

from rewardsteer.registry import Registry

METHODS = Registry(
    "decoding method",
    {
        "none": "rewardsteer.decoding.methods.none:Plain",
        "farma": "rewardsteer.decoding.methods.farma:Farma",
        "args": "rewardsteer.decoding.methods.args:Args",
        "pargs": "rewardsteer.decoding.methods.pargs:Pargs",
        "genarm": "rewardsteer.decoding.methods.genarm:GenArm",
        "cd": "rewardsteer.decoding.methods.cd:Cd",
        "best_of_n": "rewardsteer.decoding.methods.best_of_n:BestOfN",
        "cards": "rewardsteer.decoding.methods.cards:Cards",
        "goal_beam": "rewardsteer.decoding.methods.goal_beam:GoalBeam",
        "goal_filter": "rewardsteer.decoding.methods.goal_filter:GoalFilter",
        "speculative_rejection":
            "rewardsteer.decoding.methods.speculative_rejection:SpeculativeRejection",
    },
)


def wants_goal(name: str) -> bool:
    """Whether a method is guided by a goal state; raises `ConfigError` on an unknown name."""
    return bool(getattr(METHODS.get(name), "wants_goal", False))


def adds_rewards(name: str) -> bool:
    """Whether a method adds weighted rewards to next-token logits, and so takes several reward
    models, a schedule or a target KL; raises `ConfigError` on an unknown name."""
    return METHODS.get(name).level == "token" and name != "none"


def asks_candidates(name: str) -> bool:
    """Whether a method asks about the policy's ``top_k`` best tokens; False for an unknown name."""
    return name in METHODS and bool(getattr(METHODS.get(name), "asks_candidates", False))


def has_weight(name: str) -> bool:
    """Whether the setting ``weight`` means something to a method; raises `ConfigError` on an
    unknown name."""
    return adds_rewards(name) or METHODS.get(name).level == "step"
