"""The methods that a server's models can be used with, and how each is built."""

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import across
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.registry import check_abilities
from rewardsteer.decoding.fitting import methods_for
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.methods import METHODS, asks_candidates, is_guide, needs_goal
from rewardsteer.decoding.second_models import check_drafter, check_scout
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.registry import nearest


class ServedMethods:
    """Methods for a server's models; see `rewardsteer.serving.models.ServedModels`.

    Args:
        engine: runs the policy; None: there is none.
        scorer: a reward model; None: the policy alone.
        default: the server's own method.
        shared: the reward model reads the policy's tokens.
        goals: goal states by name.
        drafter: runs a second policy.
        scout: a reward model for gates of the kind ``kl``.
    """

    def __init__(
        self, engine: Engine | None, scorer: Any, default: str, *, shared: bool,
        goals: Mapping[str, GoalState], drafter: Engine | None, scout: Any,
    ) -> None:
        self._engine, self._scorer, self._default, self._shared = engine, scorer, default, shared
        self._goals, self._drafter, self._scout = goals, drafter, scout
        # The reward model wrapped for guides with another tokenizer, by `LogitsGuide.asks`.
        self._crossed: dict[str, Any] = {}
        self._guides: dict[tuple[str, int, bool, bool], LogitsGuide] = {}

    @functools.cached_property
    def names(self) -> list[str]:
        """Those that these models can be served with."""
        fitting, drafts = set[str](), getattr(self._drafter, "abilities", ())
        if self._scorer is not None:
            fitting |= set(methods_for(self._scorer, drafted=self._drafter is not None))
        found = []
        for name in dict.fromkeys([self._default, *METHODS.names()]):
            kind = METHODS.get(name)
            fits = name in fitting or kind.needs == "none" or name == self._default
            if kind.wants_goal:
                fits = self._scorer is not None and bool(self._goals)
            if (
                fits and self._engine is not None and kind.abilities <= self._engine.abilities
                and not (kind.wants_drafter and kind.drafter_abilities - set(drafts))
                and self._crosses(name)
            ):
                found.append(name)
        return found

    def check_name(self, name: str) -> None:
        """Raise `ConfigError` on a method that this server does not know: a client must not choose
        what is imported here."""
        if name not in METHODS.names() and name != self._default:
            raise ConfigError(
                f"Unknown decoding method {name!r}.{nearest(name, METHODS.names())} This server "
                f"has {', '.join(METHODS.names())}, and what it was started with."
            )

    def build(self, config: DecodingConfig) -> Method:
        """The method for given settings.

        Raises:
            ConfigError: unknown, or the settings do not fit.
            MismatchError: it does not fit the reward model, or wants a goal state and there is
                none.
        """
        method = self._build(config)
        for engine in (self._engine, method.drafter):
            if engine is not None:
                engine.check(method, config)
        return method

    def _build(self, config: DecodingConfig) -> Method:
        kind = METHODS.get(config.method)
        if self._engine is not None:
            check_abilities(self._engine, SimpleNamespace(
                name=config.method, abilities=kind.abilities
            ))
        if is_guide(config.method):
            return self._guide(config)
        drafter = self._drafter if kind.wants_drafter else None
        strategy = build_method(config, self._scorer, self._goal(config), drafter=drafter)
        check_drafter(strategy, self._engine, option="(this server's option --draft-model)")
        return strategy

    def _guide(self, config: DecodingConfig) -> LogitsGuide:
        """A guide, which is built from these settings alone: weights and gates come with the
        samples. It is cached, because samples of one guide share batches, and some guides warn when
        built."""
        top_k = config.top_k if asks_candidates(config.method) else 0
        scout = self._scout if config.gate == "kl" else None
        key = config.method, top_k, config.gate != "always", scout is not None
        if key not in self._guides:
            plain = DecodingConfig(method=config.method, top_k=top_k)
            if scout is not None:
                plain = plain.model_copy(update={"gate": "kl"})
            guide = build_method(plain, self._scorer, scout=scout)
            assert isinstance(guide, LogitsGuide), "is_guide"
            check_scout(guide, self._engine and self._engine.tokenizer)
            guide.gated = config.gate != "always"
            guide.scorer = guide.scorer and self._asked(config.method)
            self._guides[key] = guide
        return self._guides[key]

    def _crosses(self, name: str) -> bool:
        """Whether a method works with the tokenizers of policy and reward model."""
        if self._shared or self._scorer is None or not is_guide(name):
            return True
        try:
            self._asked(name)
        except MismatchError:
            return False
        return True

    def _asked(self, name: str) -> Any:
        """The reward model, wrapped for another tokenizer if needed; raises `MismatchError`."""
        asks = METHODS.get(name).asks
        if self._shared or self._scorer is None or asks == "nothing":
            return self._scorer
        if asks not in self._crossed:
            self._crossed[asks] = across(name, asks, self._scorer, self._engine)
        return self._crossed[asks]

    def _goal(self, config: DecodingConfig) -> GoalState | None:
        """The goal state for methods that use one: the first by name."""
        return self._goals[min(self._goals)] if needs_goal(config) and self._goals else None
