"""Settings of strategies are declared by the methods that read them."""

import inspect
import re

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.methods import METHODS, OF_STRATEGIES, unused
from rewardsteer.decoding.strategies import early_rejection
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.votes import Vote


def read_by(kind):
    """Names of settings in the source of a strategy and of what it calls."""
    parts = [one for one in kind.__mro__ if issubclass(one, Strategy) and one is not Strategy]
    texts = [inspect.getsource(inspect.getmodule(kind)), *map(inspect.getsource, parts[1:])]
    if re.search(r"\bVote\(", texts[0]):
        texts.append(inspect.getsource(Vote))
    if "rejection_rule(" in texts[0]:
        texts.append(inspect.getsource(early_rejection))
    return set(re.findall(r"config\.(\w+)", " ".join(texts))) & OF_STRATEGIES


def test_every_strategy_declares_what_it_reads():
    assert set(DecodingConfig.model_fields) >= OF_STRATEGIES
    declared = {name: set(METHODS.get(name).uses) for name in METHODS.names()}
    assert set().union(*declared.values()) == OF_STRATEGIES
    for name, uses in declared.items():
        kind = METHODS.get(name)
        if not issubclass(kind, Strategy):
            assert uses == set()
            continue
        # The base draws ``n`` samples where the class says so.
        read = read_by(kind) | ({"n"} if kind.draws_several else set())
        # Of a shared base not all is everybody's: those with two policies take no goal.
        extra = {"step_value"} if kind.wants_drafter else set()
        assert read - extra == uses, name


def test_what_a_method_does_not_use_is_named_with_those_that_do():
    assert unused("best_of_n", ["temperature", "n", "beam"]) == ("beam", "beam or dvts")
    assert unused("rsd", ["accept_reward", "max_steps"]) is None
    assert unused("tests.decoding.test_uses:Own", ["n", "beam"]) is None


class Own(Strategy):
    """A method from elsewhere may read any setting."""
