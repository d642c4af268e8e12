"""The engine of a run: its name, the policy, and options. All entry points (Python, command line,
server, comparisons) make their engines here. No torch until a model is needed."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rewardsteer.decoding.engines.registry import ABILITIES, ENGINES, check_abilities
from rewardsteer.decoding.methods import METHODS

if TYPE_CHECKING:
    from rewardsteer.decoding.config import DecodingConfig

HERE = "transformers"


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a run.

    Attributes:
        source: folder or hub name of the policy's tokenizer and settings; None: not available.
        options: of the engine's class method ``open``.
        vllm: the subset that are engine arguments of vLLM (``--vllm-option``).
        given_tokenizer: the policy's; None: that of the source.
    """

    name: str
    source: str | None
    options: dict[str, Any]
    vllm: dict[str, Any] = field(default_factory=dict)
    given_tokenizer: Any = None

    @property
    def kind(self) -> Any:
        return ENGINES.get(self.name)

    @property
    def by_address(self) -> bool:
        return "url" in self.options

    @cached_property
    def tokenizer(self) -> Any:
        """The policy's tokenizer; None where there is no source."""
        from rewardsteer.models.checkpoint import load_tokenizer

        if self.given_tokenizer is not None or self.source is None:
            return self.given_tokenizer
        return load_tokenizer(self.source)

    def check_method(self, name: str) -> None:
        """Refuse a method that this engine can never run, before anything loads.

        Raises:
            ConfigError: says what is missing, and what would work.
        """
        if self.name in ABILITIES:
            check_abilities(
                SimpleNamespace(name=self.name, abilities=ABILITIES[self.name]),
                SimpleNamespace(name=name, abilities=METHODS.get(name).abilities),
            )

    def check_second_models(
        self, config: "DecodingConfig | None", draft_model: Any, gate_model: str | Path | None,
        **words: str,
    ) -> None:
        """Check a second policy and a gate's reward model before anything loads; arguments and
        errors as for `rewardsteer.decoding.second_models.check_draft_model` and
        `check_gate_model`."""
        from rewardsteer.decoding.second_models import check_draft_model, check_gate_model

        # Without second models there is nothing to compare, and no tokenizer to load.
        given = draft_model is not None or gate_model is not None
        tokenizer = self.tokenizer if given else None
        check_draft_model(config, draft_model, self.name, tokenizer, **words)
        check_gate_model(config, gate_model, self.name, tokenizer)

    def open(self, config: "DecodingConfig", **options: Any) -> Any:
        """The engine, which may load the policy; ``options`` replace those of the choice."""
        return self.kind.open(self.source, self.tokenizer, config, **self.options | options)

    def second(self, policy: Any) -> "EngineChoice":
        """The choice for a second policy on the same kind of engine.

        Args:
            policy: a folder or hub name; a name, where policies are names of a server; or a loaded
                model.
        """
        if self.kind.by_name:
            return replace(self, options=self.options | {"model": policy})
        own = replace(self, given_tokenizer=self.tokenizer)
        if not isinstance(policy, str | Path):
            return replace(own, options=self.options | {"policy": policy})
        others = {name: one for name, one in self.options.items() if name != "policy"}
        return replace(own, source=str(policy), options=others)

    def shared(self, longest: int | None = 0) -> "EngineChoice":
        """The choice for several engines of this policy, one after another, which share what takes
        long to load; see `rewardsteer.decoding.engine.Engine.share`."""
        return replace(self, options=self.kind.share(self.source, longest, **self.options))

    def describe(self) -> dict[str, Any]:
        """What result files note about it; nothing of the default engine."""
        if self.name == HERE:
            return {}
        if not self.by_address:
            return {"engine": self.name}
        return {"engine": self.name, "base_url": self.options["url"], "tokenizer": self.source}
