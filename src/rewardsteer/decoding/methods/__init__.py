"""The decoding methods, one file each; none imports another.

A method is called as ``method(scorer, config)``, scorer None when the user gave no reward model.
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
        "best_of_n": "rewardsteer.decoding.methods.best_of_n:BestOfN",
        "goal_beam": "rewardsteer.decoding.methods.goal_beam:GoalBeam",
    },
)


def wants_goal(name: str) -> bool:
    """Whether a method is guided by a goal state; raises `ConfigError` on an unknown name."""
    return bool(getattr(METHODS.get(name), "wants_goal", False))
