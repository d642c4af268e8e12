"""Which decoding methods a reward model fits, by what the methods' classes declare.

A class declares ``judges_texts`` (whether a reward model that takes texts alone will do), ``needs``
(the head: ``none``, ``scalar``, ``vocabulary`` or ``any``), ``trained_on`` (objectives, one of
which must have taken part in the training; none: any training will do) and ``default_for`` (the
objective for whose reward models it is the default, "" for all others with its head, None for no
default). A new method that declares them appears in every message by itself.
"""

import logging
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.methods import METHODS, accepts_goal, adds_rewards, wants_drafter
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.compatibility import (
    check_head,
    members,
    objectives_of,
    reads_tokens,
    shown_name,
)
from rewardsteer.models.heads import LANGUAGE_MODEL_HEAD

logger = logging.getLogger(__name__)


def listed(names: list[str], last: str = "or") -> str:
    """Names as a sentence lists them: ``a, b or c``."""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def adding_methods() -> str:
    """The methods that add rewards to next-token logits, as a sentence lists them."""
    return listed([name for name in METHODS.names() if adds_rewards(name)])


def goal_methods() -> str:
    """The methods that may be guided by a goal state, as a sentence lists them."""
    return listed([name for name in METHODS.names() if accepts_goal(name)])


def drafted_methods() -> str:
    """The methods with a second policy that drafts, as a sentence lists them."""
    return listed([name for name in METHODS.names() if wants_drafter(name)])


def methods_for(scorer: Any, *, drafted: bool = False) -> list[str]:
    """Names of the methods that need only this reward model and a policy; ``drafted`` adds those
    that need a second policy."""
    return [
        name for name in METHODS.names() if _takes(METHODS.get(name), scorer)
        and (drafted or not METHODS.get(name).wants_drafter)
    ]


def judging_methods() -> str:
    """The methods that judge texts, as a sentence lists them."""
    kinds = {name: METHODS.get(name) for name in METHODS.names()}
    return listed([
        name for name, kind in kinds.items()
        if kind.judges_texts and not (kind.wants_drafter or kind.compares)
    ])


def compares_pairs(scorer: Any) -> bool:
    # Imports torch.
    from rewardsteer.models.pair_scorer import PairScorer

    return isinstance(scorer, PairScorer)


def _takes(kind: Any, scorer: Any) -> bool:
    if kind.compares != compares_pairs(scorer):
        return False
    if not reads_tokens(scorer):
        return bool(kind.judges_texts)
    if kind.wants_goal or kind.needs not in ("any", scorer.head_kind):
        return False
    known = objectives_of(scorer)
    return not kind.trained_on or not known or any(name in known for name in kind.trained_on)


def check_scorer(name: str, kind: Any, scorer: Any) -> None:
    """Refuse a reward model that does not fit a method; warn where its training is not known.

    Args:
        scorer: the reward model, an ensemble, or None when there is none.

    Raises:
        MismatchError: no reward model, several where one is needed, one with the wrong head, or one
            that says it was trained on something else.
    """
    if scorer is None:
        raise MismatchError(
            f"The method {name!r} needs a reward model, and there is none; give one, or use the "
            "method 'none'."
        )
    # Imports torch.
    from rewardsteer.models.pair_scorer import no_reward

    several = members(scorer)
    if not kind.several_models and len(several) > 1:
        raise MismatchError(
            f"The method {name!r} takes one reward model, got {len(several)}; leave out all but "
            f"one, or use {adding_methods()}."
        )
    for one in several:
        if compares_pairs(one) != kind.compares:
            raise MismatchError(
                f"The method {name!r} takes a model that compares two responses, but "
                f"{shown_name(one)} gives each a reward; {_remedy(one)}."
                if kind.compares else no_reward(one.name, one.kind)
            )
        if not reads_tokens(one):
            if not kind.judges_texts:
                raise MismatchError(
                    f"The method {name!r} reads rewards or states of tokens, but "
                    f"{shown_name(one)} judges texts alone; use it with {judging_methods()}."
                )
            continue
        if kind.needs not in ("any", one.head_kind):
            check_head(f"The method {name!r}", one, kind.needs, _remedy(one))
        _check_training(name, kind, one)


def _check_training(name: str, kind: Any, scorer: Any) -> None:
    if not kind.trained_on:
        return
    wanted, known = listed([repr(one) for one in kind.trained_on]), objectives_of(scorer)
    if not known:
        logger.warning(
            "The reward model does not say what it was trained on; %s needs one trained with the "
            "objective %s.", name, wanted,
        )
    elif not any(one in known for one in kind.trained_on):
        raise MismatchError(
            f"The method {name!r} needs a reward model trained with the objective {wanted}, but "
            f"{shown_name(scorer)} was trained with {scorer.objective!r}; {_remedy(scorer)}."
        )


def _remedy(scorer: Any) -> str:
    return f"use it with {listed(methods_for(scorer))}, or train another"


def check_gate(config: DecodingConfig, scout: Any = None) -> None:
    """Refuse a gate for methods that do not guide token by token, and a gate's reward model
    (``scout``) that is not used.

    Raises:
        ConfigError: see above.
        MismatchError: the scout has no vocabulary head.
    """
    if config.gate != "always" and not adds_rewards(config.method):
        raise ConfigError(
            f"The method {config.method!r} does not guide token by token, so it has no gate; leave "
            f"gate out, or use {adding_methods()}."
        )
    if scout is None:
        return
    if config.gate != "kl":
        raise ConfigError(
            "A reward model for the gate serves the gate 'kl' alone; set gate to kl, or leave the "
            "model out."
        )
    check_head("A reward model for the gate", scout, LANGUAGE_MODEL_HEAD, "leave it out")
