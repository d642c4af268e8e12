"""The rows of a comparison and who judges them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.evaluation.pair_judge import PairJudge
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.compatibility import members
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Generation

Metric = Callable[[Generation], float]


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: name in tables; also the file's name.
        config: how to decode.
        scorer: the reward model that guides, or a `RewardEnsemble`; None for plain sampling.
        goal: the goal state that guides, for methods that need one.
        sweep: name shared with the entries that differ from it by weight alone; "" when alone.
        drafter: a second policy with the policy's tokens, for methods that need one: a folder or
            hub name, a name on the policy's server, or a loaded model.
        scout: a reward model for the gate ``kl``, as `build_method` takes it.
    """

    label: str
    config: DecodingConfig
    scorer: Any = None
    goal: GoalState | None = None
    sweep: str = ""
    drafter: Any = None
    scout: Any = None

    def method(self, config: DecodingConfig | None = None) -> Method:
        """The method without its second policy; ``config`` may differ from the entry's settings in
        seed and number of samples."""
        return build_method(config or self.config, self.scorer, self.goal, scout=self.scout)


@dataclass
class Judge:
    """How every generation is judged.

    Attributes:
        scorer: any reward model, with any tokenizer; gives the ``reward``.
        metrics: further metrics by name.
        pairs: a language model that compares each method's responses with the baseline's.
        both_orders: whether ``pairs`` judges every pair twice, with either response first.
        second: gives a ``second_reward``, for methods that ``scorer`` itself guides.
    """

    scorer: TextScorer
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    pairs: PairJudge | None = None
    both_orders: bool = False
    second: TextScorer | None = None

    def guides(self, scorer: Any) -> bool:
        """Whether the judge's ``scorer`` is, or is among, the reward models of a method."""
        return any(
            one is self.scorer
            or bool(self.scorer.fingerprint and one.fingerprint == self.scorer.fingerprint)
            for one in ([] if scorer is None else members(scorer))
        )
