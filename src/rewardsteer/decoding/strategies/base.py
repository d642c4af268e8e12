"""The base of strategies: short programs around an engine, which extend and score samples.

    class BestOfN(Strategy):
        async def respond(self, prompt, engine, scorer):
            samples = await engine.draw(range(self.config.n))
            rewards = await scorer.score(samples)
            ...

It knows no engine and no model; the requests of many such programs are batched. A new strategy is a
file with a class; `METHODS` may name it, or a user does, as ``package.module:Class``.
"""

from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.goals.files import require_goal
from rewardsteer.models.compatibility import reads_tokens, shown_name


class Strategy:
    """Base of all strategies.

    Args:
        scorer: the reward model; None where ``needs`` is ``none``.
        config: settings; each strategy's docstring names those it uses.
        goal: a goal state of this reward model, for strategies with ``wants_goal`` or
            ``takes_goal``.

    Attributes:
        needs, trained_on, default_for: as those of a `LogitsGuide`.
        wants_goal, takes_goal: whether it needs a goal state, or may be given one.
        wants_drafter: whether it needs a second policy; ``drafter`` is the engine that runs it,
            which has the ``drafter_abilities``.
        uses: the settings of strategies (`rewardsteer.decoding.methods.OF_STRATEGIES`) that it
            reads; others are refused for methods that have a name.
        abilities: of the engine that it cannot do without.
        stands_in: the default with engines that cannot run a reward model's own method.
        draws_several: whether it draws ``n`` samples of a prompt, so that greedy mode is refused.
        asks_log_probabilities: whether it uses `Sample.log_probability`.
        judges_texts: whether it asks about texts alone, so that any reward model will do. With a
            goal state it needs a model that gives states.
        compares: whether it takes a model that compares two responses, and no reward model.
        is_best_of_n: whether it keeps the sample of the highest reward among ``n`` independent
            ones of the policy.

    Raises:
        MismatchError: no reward model, or one that does not fit; no goal state, or one of another
            reward model.
        ConfigError: several samples, but greedy.
    """

    asks = "nothing"
    needs = "any"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    wants_goal = takes_goal = wants_drafter = False
    has_weight = False
    several_models = False
    uses: tuple[str, ...] = ()
    abilities: frozenset[str] = frozenset({"extend"})
    drafter_abilities: frozenset[str] = frozenset()
    stands_in = reads_log_probabilities = False
    draws_several = False
    asks_log_probabilities = False
    is_best_of_n = False
    judges_texts = True
    compares = False

    def __init__(self, scorer: Any, config: DecodingConfig, goal: Any = None) -> None:
        self.name, self.config = config.method, config
        self.drafter: Any = None
        self.scorer: Any = None if self.needs == "none" else scorer
        if self.needs != "none":
            check_scorer(self.name, type(self), scorer)
        if goal is not None and scorer is not None and not reads_tokens(scorer):
            raise MismatchError(
                f"A goal state is a state of a reward model, but {shown_name(scorer)} judges texts "
                "alone; leave out the goal."
            )
        guided = self.wants_goal or (self.takes_goal and goal is not None)
        self.goal = require_goal(self.name, goal, scorer) if guided else None
        if self.draws_several:
            self.require_draws()

    @property
    def samples(self) -> int:
        """Maximum number of samples of one prompt at a time."""
        return self.config.n if self.draws_several else 1

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        """Answer a prompt.

        Raises:
            RewardsteerError: it cannot be answered; other prompts can.
        """
        raise NotImplementedError

    def require_draws(self, count: int | None = None, what: str = "") -> None:
        """Raise `ConfigError` in greedy mode, where all samples would be the same."""
        count = self.config.n if count is None else count
        if count > 1 and self.config.mode == "greedy":
            raise ConfigError(
                f"The method {self.name!r} draws {what or f'n = {count} responses'}, but greedy "
                "decoding gives the same one each time; use a temperature above 0 (mode 'sample')"
                + ("." if what else " or n = 1.")
            )


class Direct(Strategy):
    """One sample, by a guide or by the policy alone."""

    needs = "none"
    abilities = frozenset()

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        """The sample."""
        sample = engine.start(0)
        await sample.extend()
        return Outcome(sample)
