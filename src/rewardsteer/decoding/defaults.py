"""What a run draws from where its settings do not say: one rule for every engine and the server.

A policy's ``generation_config`` names how its makers mean it to be drawn from. Of that the settings
that exist here are taken (``temperature``, ``top_k``) where the run gives none of its own; the
others are named as not supported. ``do_sample`` is not one of them: the run's mode decides that.
Without either, the temperature is 1 and all tokens are drawn from. Methods that ask about
candidates keep their number of them.
"""

import logging
from typing import Any

from rewardsteer.decoding.config import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    DecodingConfig,
)
from rewardsteer.decoding.methods import asks_candidates

logger = logging.getLogger(__name__)

# Settings that change what is drawn and do not exist here, with the values that change nothing.
_FOREIGN: dict[str, tuple[Any, ...]] = {
    "top_p": (None, 1.0), "min_p": (None, 0.0), "typical_p": (None, 1.0), "epsilon_cutoff":
    (None, 0.0), "eta_cutoff": (None, 0.0), "top_h": (None,), "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0), "bad_words_ids": (None,), "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,), "forced_bos_token_id": (None,), "forced_eos_token_id":
    (None,), "sequence_bias": (None,), "min_length": (None, 0), "min_new_tokens": (None, 0),
    "exponential_decay_length_penalty": (None,), "guidance_scale": (None, 1.0),
}


def with_defaults(config: DecodingConfig, settings: Any = None) -> DecodingConfig:
    """The settings of a run with nothing left open.

    Args:
        config: as given; what was set stays.
        settings: the policy's ``generation_config``; None: it has none.
    """
    taken = _taken(config, settings)
    return config.model_copy(update=taken) if taken else config


def what_is_taken(config: DecodingConfig, settings: Any) -> str:
    """A line on what comes from the policy's settings and what of them is not supported; "" where
    nothing does."""
    if config.mode == "greedy":
        return ""
    own = {name: getattr(settings, name, None) for name in ("temperature", "top_k")}
    taken = [
        f"{name}={value}" for name, value in _taken(config, settings).items()
        if own[name] is not None and value == own[name]
    ]
    foreign = [
        f"{name}={value}" for name, neutral in _FOREIGN.items()
        if (value := getattr(settings, name, None)) not in neutral
    ]
    parts = [f"taken: {', '.join(taken)}"] * bool(taken)
    parts += [f"not supported here: {', '.join(foreign)}"] * bool(foreign)
    return f"The policy's generation settings: {'; '.join(parts)}." if parts else ""


def _taken(config: DecodingConfig, settings: Any) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    if "temperature" not in config.model_fields_set:
        own = getattr(settings, "temperature", None)
        if own is not None and LEAST_TEMPERATURE <= own <= MOST_TEMPERATURE:
            taken["temperature"] = float(own)
        else:
            taken["temperature"] = config.temperature
    if "top_k" not in config.model_fields_set:
        if asks_candidates(config.method):
            taken["top_k"] = config.top_k
        else:
            taken["top_k"] = max(0, int(getattr(settings, "top_k", None) or 0))
    return taken


def policy_settings(source: str) -> Any:
    """The ``generation_config`` of a policy's folder or hub name; None where it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except (OSError, ValueError):  # none, or one that transformers itself goes without
        return None
