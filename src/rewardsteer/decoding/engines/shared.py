"""One policy's engine for several runs, one after another."""

from functools import cached_property
from pathlib import Path
from typing import Any

from rewardsteer.decoding.answer import Method, is_guided_by
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.choice import EngineChoice


class SharedEngine:
    """Opens engines of one policy, one after another. What takes long to load (a policy in this
    process, a running vLLM) is loaded on first use and serves all of them.

    Attributes:
        longest: maximum of prompt and response tokens of all runs, to be set before first use;
            0: that of the first run; None: as many as the policy can read.
    """

    def __init__(self, choice: EngineChoice, longest: int | None = 0) -> None:
        self.longest = longest
        self._given = choice
        self._seconds: dict[Any, EngineChoice] = {}
        self._held: tuple[Any, ...] | None = None

    @cached_property
    def choice(self) -> EngineChoice:
        """The choice with what is shared."""
        return self._given.shared(self.longest)

    def second(self, given: Any) -> EngineChoice:
        """The choice for a second policy, which loads once for all methods that name it."""
        key = _key(given)
        if key not in self._seconds:
            self._seconds[key] = self.choice.second(given).shared(self.longest)
        return self._seconds[key]

    def open(self, method: Method, config: DecodingConfig, drafter: Any = None) -> Engine:
        """An engine for one run of a method, which gets its second policy.

        Args:
            drafter: the second policy, as `EngineChoice.second` takes it; None: none.
        """
        if drafter is not None:
            method.drafter = self.second(drafter).open(config)
        options = self.choice.options
        # These place the other reward models: one that guides inside the engine goes with it.
        own = {name: None for name in ("reward_device", "reward_dtype")
               if name in options and self._guide(method)}
        engine: Engine = self.choice.open(config, **own)
        return engine

    def turn_to(self, method: Method, drafter: Any, batch_size: int) -> None:
        """Make room for a method whose models do not run together with those of the last one."""
        needs = self._guide(method), _key(drafter), batch_size
        if self._held is not None and self._held != needs:
            self.close()
        self._held = needs

    def close(self) -> None:
        """Free the part that runs with other reward models cannot use: vLLM stops."""
        if self._held is not None:
            self.choice.kind.release(self.choice.options)
        self._held = None

    def _guide(self, method: Method) -> str | None:
        """The folder of a reward model that guides inside the engine; None without one."""
        inside = self.choice.kind.holds_guides and is_guided_by(method)
        return method.scorer.name if inside else None


def _key(policy: Any) -> str | int:
    return str(policy) if isinstance(policy, str | Path) else id(policy)
