"""Name → ``"module:attribute"``, imported on first use; a miss lists the known names.

Importing a registry imports none of its entries, so ``rewardsteer --help`` needs no torch.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from rewardsteer.errors import ConfigError


def nearest(name: str, known: list[str]) -> str:
    """``" Did you mean 'x'?"`` for the closest known name, or ``""`` when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class Registry:
    """A table of one kind of plug-in.

    Args:
        kind: what the entries are, in the singular, for messages ("data source").
        entries: name → ``"package.module:attribute"``.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def check(self, name: str) -> None:
        """Raise `ConfigError` listing the known names on a miss; imports nothing."""
        if name not in self._entries:
            known = self.names()
            raise ConfigError(
                f"Unknown {self.kind} {name!r}.{nearest(name, known)} Known: {', '.join(known)}."
            )

    def get(self, name: str) -> Any:
        """Import and return the entry; raises `ConfigError` listing the known names on a miss."""
        self.check(name)
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
