"""Defaults of sampling settings: one rule for every engine and the server.

A setting that the run does not give comes from the policy's ``generation_config``, where it has
one; entries that do not exist here are reported as not supported. ``do_sample`` is ignored, because
the run's mode decides that. Without either, the temperature is 1 and tokens are drawn from the
whole vocabulary. Methods that score candidates keep their own default number of candidates.
"""

import logging
from typing import Any

from pydantic import ValidationError

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.methods import asks_candidates

logger = logging.getLogger(__name__)

# Our settings and the names that policies give them.
NAMES = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repetition_penalty", "min_tokens": "min_new_tokens",
}
# Without meaning to a greedy run.
_DRAWING = frozenset(("temperature", "top_k", "top_p", "min_p"))
# Settings that change what is drawn and do not exist here, with the values that change nothing.
_FOREIGN: dict[str, tuple[Any, ...]] = {
    "typical_p": (None, 1.0), "epsilon_cutoff": (None, 0.0), "eta_cutoff": (None, 0.0), "top_h":
    (None,), "no_repeat_ngram_size": (None, 0), "bad_words_ids": (None,), "suppress_tokens":
    (None,), "begin_suppress_tokens": (None,), "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,), "sequence_bias": (None,), "min_length": (None, 0),
    "exponential_decay_length_penalty": (None,), "guidance_scale": (None, 1.0),
}


def with_defaults(config: DecodingConfig, settings: Any = None) -> DecodingConfig:
    """The settings of a run with all defaults filled in.

    Args:
        config: as given; what was set stays.
        settings: the policy's ``generation_config``; None: it has none.
    """
    taken = _taken(config, settings)
    return config.model_copy(update=taken) if taken else config


def what_is_taken(config: DecodingConfig, settings: Any) -> str:
    """A log line: which of the policy's settings are used, and which are not supported; "" if there
    are neither."""
    greedy, neutral = config.mode == "greedy", with_defaults(config)
    taken = [
        f"{name}={value}" for name, value in _taken(config, settings).items()
        if getattr(settings, NAMES[name], None) is not None and value != getattr(neutral, name)
        and not (greedy and name in _DRAWING)
    ]
    foreign = [
        f"{name}={value}" for name, idle in _FOREIGN.items()
        if (value := getattr(settings, name, None)) not in idle
    ]
    parts = [f"taken: {', '.join(taken)}"] * bool(taken)
    parts += [f"not supported here: {', '.join(foreign)}"] * bool(foreign)
    return f"The policy's generation settings: {'; '.join(parts)}." if parts else ""


def _taken(config: DecodingConfig, settings: Any) -> dict[str, Any]:
    """The settings that the run leaves open: the policy's own where they are within our bounds."""
    taken: dict[str, Any] = {}
    for name in NAMES.keys() - config.model_fields_set:
        candidates = name == "top_k" and asks_candidates(config.method)
        taken[name] = getattr(config, name) if candidates or name != "top_k" else 0
        own = None if candidates else getattr(settings, NAMES[name], None)
        if own is not None:
            try:
                checked = DecodingConfig.model_validate({name: own})
            except ValidationError:
                continue
            # A temperature of 0 is left to the run's mode.
            taken[name] = getattr(checked, name)
    return {name: taken[name] for name in NAMES if name in taken}


def policy_settings(source: str) -> Any:
    """The ``generation_config`` of a policy's folder or hub name; None where it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except (OSError, ValueError):  # none, or one that transformers itself goes without
        return None
