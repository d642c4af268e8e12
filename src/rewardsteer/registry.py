"""Registries of plug-ins by name. Entries ``"module:attribute"`` are imported on first use.

Importing a registry imports none of its entries, so ``rewardsteer --help`` needs no torch.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from rewardsteer.errors import ConfigError


def nearest(name: str, known: list[str]) -> str:
    """``" Did you mean 'x'?"`` for the closest known name, or ``""`` when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_options(
    what: str, function: Callable[..., Any], options: Collection[str],
    besides: Collection[str] = (),
) -> None:
    """Raise `ConfigError` where a function takes no such option.

    Args:
        what: that the function makes or loads, for the message.
        function: one that takes any option is not checked.
        options: the names given.
        besides: names of arguments that are no options.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters if one.name not in besides]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{what} has no option {name!r}.{nearest(name, known)} Known: "
                f"{', '.join(known) or 'none'}."
            )


class Registry:
    """A table of one kind of plug-in.

    Args:
        kind: noun for an entry, in the singular, for messages ("data source").
        entries: name → ``"package.module:attribute"``.
        classes: places of the classes of which an entry from elsewhere has to be a subclass (of one
            of them); empty: it may be anything.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, str], *, classes: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._classes = list(classes)

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (isinstance(name, str) and _is_place(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{len(self)} names of a {self.kind}: {', '.join(self)}>"

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
            ConfigError: unknown name (lists the known ones), the import failed, or what was
                imported is something else.
        """
        self.check(name)
        if name in self._entries:
            return _imported(self._entries[name])
        try:
            found = _imported(name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"The {self.kind} {name!r} cannot be imported: {error}. Expected the name of a "
                "module that Python finds, a colon, and a name in it."
            ) from error
        self._check_class(name, found)
        return found

    def _check_class(self, name: str, found: Any) -> None:
        known = tuple(map(_imported, self._classes))
        if known and not (isinstance(found, type) and issubclass(found, known)):
            raise ConfigError(
                f"{name!r} is no {self.kind}; expected a class derived from "
                f"{' or '.join(f'{one.__name__} ({one.__module__})' for one in known)}."
            )


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _is_place(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(
        part.isidentifier() for part in module.split(".")
    )
