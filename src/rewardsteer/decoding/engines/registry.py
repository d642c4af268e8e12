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
    classes=["rewardsteer.decoding.engine:Engine"],
)
# The abilities of a server are found by requests; these are all that it can have.
ABILITIES: dict[str, frozenset[Any]] = {
    "transformers": frozenset({
        "logits", "candidates", "token_ids", "extend", "abort", "logprobs", "likelihoods",
        "entropy", "prefix_cache",
    }),
    "vllm": frozenset({
        "logits", "token_ids", "extend", "abort", "logprobs", "likelihoods", "prefix_cache",
    }),
    "openai": frozenset({
        "candidates", "token_ids", "extend", "abort", "logprobs", "likelihoods",
    }),
}
MEANINGS = {
    "logits": "lets methods act on next-token scores",
    "candidates": "names the likeliest next tokens by their ids",
    "token_ids": "gives the policy's token ids",
    "extend": "goes on with a response",
    "abort": "gives up a response",
    "logprobs": "gives tokens' log-probabilities",
    "likelihoods": "gives log-probabilities of given tokens",
    "entropy": "stops where the policy is unsure",
    "prefix_cache": "goes on without reading anything again",
}
# Alternatives to a method, by engine and the ability that it lacks.
_INSTEAD = {
    ("vllm", "candidates"):
        "a reward model with a vocabulary head (farma or genarm, trained or distilled), ",
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
    instead = "".join(_INSTEAD.get((engine.name, one), "") for one in missing)
    raise ConfigError(
        f"The method {method.name!r} needs an engine that "
        f"{' and '.join(MEANINGS[one] for one in missing)}, which {engine.name}"
        f"{f' ({reason})' if reason else ''} does not do; use {instead}the "
        f"engine {' or '.join(others) or 'of its own'}, or one of the methods that run here: "
        f"{', '.join(here)}."
    )
