"""The method that a reward model was trained for, which is its default."""

import logging
from collections.abc import Collection
from typing import Any, NamedTuple

from rewardsteer.decoding.fitting import compares_pairs
from rewardsteer.decoding.methods import BEST_OF, BEST_OF_PAIRS, METHODS
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.compatibility import reads_tokens

logger = logging.getLogger(__name__)



class Choice(NamedTuple):
    """A method that was chosen by default, and the reason."""

    name: str
    why: str

    def told(self, otherwise: str) -> str:
        """One line that names both; ``otherwise`` says how to choose another method."""
        return f"method: {self.name} ({self.why}; {otherwise})"


WITHOUT_REWARD_MODEL = Choice("none", "there is no reward model")


def default_method(card: CheckpointCard, abilities: Collection[str] | None = None) -> Choice:
    """The method that a reward model was trained for, by its card; with an engine that lacks the
    abilities for it, the one that stands in (`Strategy.stands_in`)."""
    choice = _default(card.head.kind, card.objective, card.reads_log_probabilities)
    if abilities is None or METHODS.get(choice.name).abilities <= set(abilities):
        return choice
    return Choice(_stand_in(), f"this engine cannot run {choice.name}, {choice.why}")


def foreign_method(kind: str, *, compares: bool) -> Choice:
    """The method that takes any reward model of a kind that does not say how it was trained."""
    return Choice(
        BEST_OF_PAIRS if compares else BEST_OF, f"the default for reward models of the kind {kind}"
    )


def method_of(scorer: Any) -> Choice:
    """The method that a loaded reward model was trained for."""
    if compares_pairs(scorer):
        return Choice(BEST_OF_PAIRS, "the default for models that compare two responses")
    if not reads_tokens(scorer):
        return Choice(_stand_in(), "the default for reward models that judge texts alone")
    return _default(scorer.head_kind, scorer.objective, scorer.autoregressive)


def log_choice(choice: Choice) -> str:
    """The name of the method, which is logged with the reason."""
    logger.info(choice.told("choose another with method="))
    return choice.name


def _stand_in() -> str:
    return next(name for name in METHODS.names() if METHODS.get(name).stands_in)


def _default(head: str, objective: str, log_probabilities: bool) -> Choice:
    kinds = {name: METHODS.get(name) for name in METHODS.names()}
    fitting = {
        name: kind for name, kind in kinds.items()
        if kind.needs == head and kind.default_for is not None
    }
    found = {kind.default_for: name for name, kind in fitting.items()
             if not kind.reads_log_probabilities}
    exact = [name for name, kind in fitting.items()
             if log_probabilities and kind.reads_log_probabilities]
    exact += [found[name] for name in objective.split("+") if name in found]
    trained = f"trained with {objective}" if objective else "of unknown training"
    return Choice(next(iter(exact), found[""]), f"the default for a {head} head {trained}")
