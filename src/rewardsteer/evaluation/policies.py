"""The policy of a comparison, and the second policies of its methods, on any engine."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.choice import HERE, EngineChoice
from rewardsteer.decoding.generate import checked
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.evaluation.budget import Sizes, relative_sizes
from rewardsteer.models.causal import Row, log_probabilities, parameter_count

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry


class ComparedPolicy:
    """The policy that all methods of a comparison share. What takes long to load (a policy in this
    process, a running vLLM) is loaded on first use and serves several methods.

    Args:
        choice: the engine and its options.

    Attributes:
        tokenizer: the policy's; None where only a server knows it.
        longest: maximum of prompt and response tokens of all methods, to be set before first use;
            0: not known.
    """

    def __init__(self, choice: EngineChoice) -> None:
        self.tokenizer, self.engine = choice.tokenizer, choice.name
        self.longest = 0
        self._given = choice
        self._seconds: dict[Any, EngineChoice] = {}
        self._held: tuple[Any, ...] | None = None

    @classmethod
    def loaded(cls, policy: Any, tokenizer: Any) -> "ComparedPolicy":
        """A causal LM in this process, with its tokenizer."""
        return cls(EngineChoice(HERE, None, {"policy": policy}, given_tokenizer=tokenizer))

    @cached_property
    def _choice(self) -> EngineChoice:
        return self._given.shared(self.longest)

    def _second(self, given: Any) -> EngineChoice:
        """The choice for a second policy, which loads once for all methods that name it."""
        key = str(given) if isinstance(given, str | Path) else id(given)
        if key not in self._seconds:
            self._seconds[key] = self._choice.second(given).shared(self.longest)
        return self._seconds[key]

    @property
    def here(self) -> bool:
        """Whether it is a model in this process, which gives its logits between the steps of the
        engine."""
        return self.engine == HERE

    @property
    def model(self) -> Any:
        """The loaded policy; only `here`."""
        return self._choice.options["policy"]

    @cached_property
    def abilities(self) -> frozenset[str]:
        """What its engine can do; a server is asked."""
        found: frozenset[str] = self._choice.open(with_defaults(DecodingConfig())).abilities
        return found

    def open(self, entry: "Entry", config: DecodingConfig) -> tuple[Engine, Method]:
        """An engine for one run of an entry's method, and the method with its second policy.

        Args:
            entry: names the method and its models.
            config: may differ from the entry's in seed and number of samples.
        """
        method, options = entry.method(config), self._choice.options
        if entry.drafter is not None:
            method.drafter = self._second(entry.drafter).open(config)
        # These place the other reward models: one that guides inside the engine goes with it.
        own = {name: None for name in ("reward_device", "reward_dtype")
               if name in options and self._guide(method)}
        return self._choice.open(config, **own), method

    def _guide(self, method: Method) -> str | None:
        """The folder of a reward model that guides inside the engine; None without one."""
        inside = self._choice.kind.holds_guides and isinstance(method, LogitsGuide)
        return method.scorer.name if inside and method.scorer is not None else None

    def check(self, entry: "Entry") -> None:
        """Refuse an entry that cannot run, before any does.

        Raises:
            ConfigError: the engine cannot do what the method or its settings need.
            MismatchError: the models do not fit each other.
        """
        engine, method = self.open(entry, entry.config)
        checked(engine, method, with_defaults(entry.config, engine.settings))

    def turn_to(self, entry: "Entry") -> None:
        """Make room for an entry whose models do not run together with those of the last one."""
        needs = self._guide(entry.method()), str(entry.drafter), entry.config.batch_size
        if self._held is not None and self._held != needs:
            self._choice.kind.release(self._choice.options)
        self._held = needs

    def log_likelihoods(
        self, entry: "Entry", rows: Sequence[Row], batch_size: int
    ) -> list[float] | None:
        """log p(y | x) of responses under the policy alone, in nats, at temperature 1 over the
        whole vocabulary; None where the engine does not give it.

        Args:
            entry: whose responses they are. An engine that holds its reward model goes on with it.
            rows: token ids of prompts and responses.
            batch_size: rows computed together.
        """
        if self.here:
            values = log_probabilities(self.model, rows, batch_size, None)
            return [float(one.sum()) for one in values]
        if "likelihoods" not in self.abilities:
            return None
        engine, method = self.open(entry, entry.config)
        engine.begin(method, entry.config, max(len(x) + len(y) for x, y in rows))
        programs = (partial(_told, engine, *row) for row in rows)
        return list(in_order(programs, engine.room, engine.close, most=batch_size))

    def parameters(self, second: Any = None) -> float:
        """Number of the policy's weights, or of a second policy's; NaN for one that only a server
        knows."""
        choice = self._choice if second is None else self._second(second)
        if "policy" in choice.options:
            return sum(weight.numel() for weight in choice.options["policy"].parameters())
        where = choice.options.get("model") if choice.by_address else choice.source
        if choice.by_address and not (where and Path(where).is_dir()):
            return math.nan
        return parameter_count(str(where))

    def sizes(self, entry: "Entry") -> Sizes:
        """Sizes of an entry's models in units of the policy's; NaN where a size is not known."""
        scorer = entry.method().scorer
        if scorer is None and entry.drafter is None and entry.scout is None:
            return Sizes()
        return relative_sizes(
            self.parameters(), scorer, scout=entry.scout,
            drafter=0.0 if entry.drafter is None else self.parameters(entry.drafter),
        )


async def _told(engine: Engine, prompt: list[int], response: list[int]) -> float:
    if not response:
        return 0.0
    [value] = await engine.likelihoods(Encoded("", prompt)).of([], [response])
    return value
