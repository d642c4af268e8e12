"""Train reward models for language, know how good they are, and steer generation with them.

The public names are imported on first use, so ``import rewardsteer`` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardsteer.api.distillation import distil
    from rewardsteer.api.evaluation import compare, evaluate
    from rewardsteer.api.remote import JudgeRewardModel, RemoteRewardModel
    from rewardsteer.api.results import Ranked, TokenScores
    from rewardsteer.api.reward_model import RewardModel
    from rewardsteer.api.steerer import Steerer
    from rewardsteer.api.training import train
    from rewardsteer.decoding.config import DecodingConfig as SteeringConfig
    from rewardsteer.decoding.methods import METHODS
    from rewardsteer.errors import RewardsteerError
    from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS as BENCHMARKS
    from rewardsteer.goals.goal_state import GoalState
    from rewardsteer.objectives import OBJECTIVES
    from rewardsteer.records import Generation
    from rewardsteer.training.config import TrainConfig

__version__ = "0.2.0"

_PLACES = {
    "BENCHMARKS": "rewardsteer.evaluation.reward_benchmarks:REWARD_BENCHMARKS",
    "GoalState": "rewardsteer.goals.goal_state:GoalState",
    "Generation": "rewardsteer.records:Generation",
    "JudgeRewardModel": "rewardsteer.api.remote:JudgeRewardModel",
    "METHODS": "rewardsteer.decoding.methods:METHODS",
    "OBJECTIVES": "rewardsteer.objectives:OBJECTIVES",
    "Ranked": "rewardsteer.api.results:Ranked",
    "RemoteRewardModel": "rewardsteer.api.remote:RemoteRewardModel",
    "RewardModel": "rewardsteer.api.reward_model:RewardModel",
    "RewardsteerError": "rewardsteer.errors:RewardsteerError",
    "Steerer": "rewardsteer.api.steerer:Steerer",
    "SteeringConfig": "rewardsteer.decoding.config:DecodingConfig",
    "TokenScores": "rewardsteer.api.results:TokenScores",
    "TrainConfig": "rewardsteer.training.config:TrainConfig",
    "compare": "rewardsteer.api.evaluation:compare",
    "distil": "rewardsteer.api.distillation:distil",
    "evaluate": "rewardsteer.api.evaluation:evaluate",
    "train": "rewardsteer.api.training:train",
}
__all__ = [
    "BENCHMARKS", "METHODS", "OBJECTIVES", "Generation", "GoalState", "JudgeRewardModel", "Ranked",
    "RemoteRewardModel", "RewardModel", "RewardsteerError", "Steerer", "SteeringConfig",
    "TokenScores", "TrainConfig", "__version__", "compare", "distil",
    "evaluate", "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'rewardsteer' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
