"""Checks of the options of kinds, before anything is loaded."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from rewardsteer.data.sources.files import kind_of
from rewardsteer.errors import ConfigError

_NAMES: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null",
}


def check_options(kind: type, options: Mapping[str, Any], shown: str) -> None:
    """Raise `ConfigError` on an option that a class does not take, or of the wrong type."""
    known = [name for name in inspect.signature(kind).parameters if name not in ("url", "template")]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"Unknown option {unknown[0]!r} of {shown}; it takes {', '.join(known)}."
        )
    check_types(kind, options)


def check_types(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` on an option whose value is not of the type that a function or class
    declares. Options that it does not declare, and types other than truth values, numbers and
    texts, are left alone."""
    for name, about in inspect.signature(function).parameters.items():
        types = _alternatives(about.annotation)
        if name in options and types <= _NAMES.keys() and not _is_one(options[name], types):
            expected = " or ".join(_NAMES[one] for one in _NAMES if one in types)
            raise ConfigError(f"Expected {name}= as {expected}, got {kind_of(options[name])}.")


def _alternatives(annotation: Any) -> set[Any]:
    several = get_origin(annotation) in (Union, UnionType)
    return set(get_args(annotation)) if several else {annotation}


def _is_one(value: Any, types: set[Any]) -> bool:
    # A truth value would count as a number, and a whole number is a number.
    wider = types | ({int} if float in types else set())
    return type(value) in wider
