"""Sizes of the demo. No torch here."""

from pydantic import Field

from rewardsteer.configuration import Config, Seed
from rewardsteer.data.sources.arithmetic import ArithmeticConfig


class DemoConfig(Config):
    """The demo on the arithmetic task.

    Attributes:
        task: the task and the policy's flaw.
        hidden_size, layers, heads: shape of the Llama that the policy and reward models share.
        policy_steps: updates of the policy, 64 fresh solutions each.
        questions: questions whose sampled solutions become pairs.
        samples: solutions sampled per question.
        pairs_per_question: maximum number of pairs per question.
        reward_steps: updates of each reward model, 64 pairs each.
        constraint_steps: updates of FaRMA's constraint phase, among ``reward_steps``.
        goal_weight: weight of the contrastive objective in the goal-conditioned model.
        vote_questions, vote_samples: questions on which that model is evaluated, and solutions
            per question.
        center_coefficient: reward centring; it makes rewards comparable across questions.
        fresh: new sampled solutions on which reward models are tested.
        tuning_prompts: questions on which each guided method's weight is chosen.
        test_prompts: questions of the comparison.
        weights: weights to choose from.
        candidates: k of ARGS and PARGS.
        best_of: n of best-of-n and of the goal filter.
        speculative: n of speculative rejection.
        num_proc: processes that train reward models and compare methods; None: as many as there
            are processors, eight at most.
        seed: of everything; the task's flaw has its own.
    """

    task: ArithmeticConfig = ArithmeticConfig()
    hidden_size: int = 96
    layers: int = 2
    heads: int = 6
    policy_steps: int = Field(300, ge=1)
    questions: int = Field(8000, ge=2)
    samples: int = Field(8, ge=2)
    pairs_per_question: int = Field(4, ge=1)
    reward_steps: int = Field(400, ge=1)
    constraint_steps: int = Field(50, ge=1)
    goal_weight: float = 0.25
    vote_questions: int = Field(400, ge=4)
    vote_samples: int = Field(16, ge=2)
    center_coefficient: float = 0.1
    fresh: int = Field(2000, ge=10)
    tuning_prompts: int = Field(300, ge=1)
    test_prompts: int = Field(1000, ge=2)
    weights: list[float] = Field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 3.0])
    candidates: int = 5
    best_of: int = 8
    speculative: int = 12
    num_proc: int | None = Field(None, ge=1)
    seed: Seed = 0
