"""Registries of plug-ins by name. Entries ``"module:attribute"`` are imported on first use.

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
        kind: noun for an entry, in the singular, for messages ("data source").
        entries: name → ``"package.module:attribute"``.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (isinstance(name, str) and _is_place(name))

    def check(self, name: str) -> None:
        """Raise a `ConfigError` that lists the known names if the name is unknown; no import."""
        if name not in self:
            known = self.names()
            raise ConfigError(
                f"Unknown {self.kind} {name!r}.{nearest(name, known)} Known: {', '.join(known)}; "
                "one from elsewhere is named package.module:Name."
            )

    def get(self, name: str) -> Any:
        """Import and return the entry of a name, or the object at ``package.module:attribute``.

        Raises:
            ConfigError: unknown name (lists the known ones), or the import failed.
        """
        self.check(name)
        module, _, attribute = self._entries.get(name, name).partition(":")
        if name in self._entries:
            return getattr(importlib.import_module(module), attribute)
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"The {self.kind} {name!r} cannot be imported: {error}. Expected the name of a "
                "module that Python finds, a colon, and a name in it."
            ) from error


def _is_place(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(
        part.isidentifier() for part in module.split(".")
    )
