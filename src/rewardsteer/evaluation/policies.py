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
from rewardsteer.decoding.engines.shared import SharedEngine
from rewardsteer.decoding.generate import checked
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.evaluation.budget import Sizes, relative_sizes
from rewardsteer.models.causal import Row, log_probabilities, parameter_count

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry


class ComparedPolicy:
    """The policy that all methods of a comparison share. What takes long to load (a policy in this
    process, a running vLLM) is loaded on first use and serves several methods.

    Attributes:
        tokenizer: the policy's; None where only a server knows it.
        shared: its engine.
    """

    def __init__(self, choice: EngineChoice) -> None:
        self.tokenizer, self.engine = choice.tokenizer, choice.name
        self.shared = SharedEngine(choice)

    @classmethod
    def loaded(cls, policy: Any, tokenizer: Any) -> "ComparedPolicy":
        """A causal LM in this process, with its tokenizer."""
        return cls(EngineChoice(HERE, None, {"policy": policy}, given_tokenizer=tokenizer))

    @property
    def here(self) -> bool:
        """Whether it is a model in this process, which gives its logits between the steps of the
        engine."""
        return self.engine == HERE

    @property
    def model(self) -> Any:
        """The loaded policy; only `here`."""
        return self.shared.choice.options["policy"]

    @cached_property
    def abilities(self) -> frozenset[str]:
        """What its engine can do; a server is asked."""
        found: frozenset[str] = self.shared.choice.open(with_defaults(DecodingConfig())).abilities
        return found

    def open(self, entry: "Entry", config: DecodingConfig) -> tuple[Engine, Method]:
        """An engine for one run of an entry's method, and the method with its second policy.

        Args:
            entry: names the method and its models.
            config: may differ from the entry's in seed and number of samples.
        """
        method = entry.method(config)
        return self.shared.open(method, config, entry.drafter), method

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
        self.shared.turn_to(entry.method(), entry.drafter, entry.config.batch_size)

    def close(self) -> None:
        """Stop a vLLM that runs for it."""
        self.shared.close()

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
        choice = self.shared.choice if second is None else self.shared.second(second)
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
