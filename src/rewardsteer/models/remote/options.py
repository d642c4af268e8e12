"""Options of kinds that load nothing."""

import inspect
from collections.abc import Mapping
from typing import Any

from rewardsteer.errors import ConfigError


def check_options(kind: type, options: Mapping[str, Any], shown: str) -> None:
    """Raise `ConfigError` on an option that a class does not take."""
    known = [name for name in inspect.signature(kind).parameters if name not in ("url", "template")]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"Unknown option {unknown[0]!r} of {shown}; it takes {', '.join(known)}."
        )
