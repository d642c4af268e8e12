"""The attention implementation of models that cap attention scores (Gemma 2)."""

import logging
from typing import Any

logger = logging.getLogger(__name__)

# Implementations of transformers that leave the cap out.
_UNCAPPED = ("sdpa",)


def with_caps(options: dict[str, Any], config: Any) -> dict[str, Any]:
    """Options of ``from_pretrained`` with which attention scores are capped where the architecture
    does so. transformers chooses ``sdpa``, which leaves the cap out without a word; rewards then
    differ from those of training.

    Args:
        options: an ``attn_implementation`` among them is kept; one without caps is warned of.
        config: transformers' configuration of the model.
    """
    chosen = options.get("attn_implementation")
    if chosen is None and _caps(config):
        return options | {"attn_implementation": "eager"}
    _warn(config, chosen)
    return options


def with_caps_of(source: str, options: dict[str, Any]) -> dict[str, Any]:
    """As `with_caps`, for a folder or hub name; loading says where its configuration is damaged or
    unknown."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception:  # damaged files raise dozens of unrelated kinds
        return options
    return with_caps(options, config)


def warn_of_caps(model: Any) -> None:
    """Warn where the attention of a loaded model leaves out the cap of its architecture."""
    config = getattr(model, "config", None)
    if config is not None:
        _warn(config, getattr(config, "_attn_implementation", None))


def _warn(config: Any, implementation: str | None) -> None:
    if implementation in _UNCAPPED and _caps(config):
        logger.warning(
            "The architecture %s caps attention scores, which the attention %r leaves out: results "
            "differ from those of its training. Load it with attn_implementation='eager'.",
            config.model_type, implementation,
        )


def _caps(config: Any) -> bool:
    text = config.get_text_config(decoder=True)
    return getattr(text, "attn_logit_softcapping", None) is not None
