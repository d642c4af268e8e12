"""The engines and what each can do at best. No torch here: the command line reads it."""

from typing import Any

from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import ConfigError
from rewardsteer.registry import Registry

_HERE = "rewardsteer.decoding.engines"
ENGINES = Registry(
    "engine",
    {
        "transformers": f"{_HERE}.transformers.engine:TransformersEngine",
        "vllm": f"{_HERE}.vllm_engine:VllmEngine",
        "openai": f"{_HERE}.openai:OpenAIEngine",
    },
)
# What a server behind an address can do is found out; these are the most.
ABILITIES: dict[str, frozenset[Any]] = {
    "transformers": frozenset({
        "logits", "token_ids", "extend", "abort", "logprobs", "likelihoods", "entropy",
        "prefix_cache",
    }),
    "vllm": frozenset({"logits", "token_ids", "extend", "abort", "logprobs", "prefix_cache"}),
    "openai": frozenset({"token_ids", "extend", "abort", "logprobs"}),
}
MEANINGS = {
    "logits": "lets methods act on next-token scores",
    "token_ids": "gives the policy's token ids",
    "extend": "goes on with a response",
    "abort": "gives up a response",
    "logprobs": "gives tokens' log-probabilities",
    "likelihoods": "gives log-probabilities of given tokens",
    "entropy": "stops where the policy is unsure",
    "prefix_cache": "goes on without reading anything again",
}


def check_abilities(engine: Any, method: Any) -> None:
    """Refuse a method that an engine cannot run, before any work.

    Raises:
        ConfigError: says what is missing, which engines have it, and what runs here.
    """
    missing = [one for one in MEANINGS if one in method.abilities - set(engine.abilities)]
    if not missing:
        return
    others = [name for name, can in ABILITIES.items() if method.abilities <= can]
    here = [name for name in METHODS.names() if METHODS.get(name).abilities <= engine.abilities]
    reason = getattr(engine, "reason", "")
    raise ConfigError(
        f"The method {method.name!r} needs an engine that "
        f"{' and '.join(MEANINGS[one] for one in missing)}, which {engine.name}"
        f"{f' ({reason})' if reason else ''} does not do; use the engine "
        f"{' or '.join(others) or 'of its own'}, or one of the methods that run here: "
        f"{', '.join(here)}."
    )
