"""How long a row a backbone can read."""

from typing import Any


def position_limit(config: Any) -> int | None:
    """Most positions the model was built for; None when it states none."""
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    return int(limit) if limit else None


def padding_id(config: Any) -> int | None:
    """The padding id in a model's configuration, which its plain sequence classifier skips."""
    found = getattr(config.get_text_config(), "pad_token_id", None)
    return found if isinstance(found, int) else None
