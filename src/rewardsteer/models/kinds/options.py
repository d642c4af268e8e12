"""Checks of the options of kinds, before anything is loaded."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rewardsteer.data.sources.files import kind_of
from rewardsteer.errors import ConfigError

_NAMES: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    dict: "a mapping", NoneType: "null",
}


def check_options(kind: type, options: Mapping[str, Any], shown: str) -> None:
    """Raise `ConfigError` on an option that a class does not take, or of the wrong type."""
    parameters = inspect.signature(kind).parameters
    unknown = sorted(options.keys() - parameters.keys())
    if unknown:
        known = [name for name in parameters if name not in ("url", "template")]
        raise ConfigError(
            f"Unknown option {unknown[0]!r} of {shown}; it takes {', '.join(known)}."
        )
    check_types(kind, options)


def check_types(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` on an option whose value is not of the type that a function or class
    declares. Options that it does not declare, and types other than truth values, numbers, texts,
    mappings and listed values, are left alone."""
    for name, about in inspect.signature(function).parameters.items():
        if name not in options or about.annotation is inspect.Parameter.empty:
            continue
        value, types = options[name], _alternatives(about.annotation)
        listed = [one for kind in types if get_origin(kind) is Literal for one in get_args(kind)]
        plain = {get_origin(kind) or kind for kind in types} - {Literal}
        if not plain <= _NAMES.keys() or value in listed or _is_one(value, plain):
            continue
        names = [*map(repr, listed), *(_NAMES[one] for one in _NAMES if one in plain)]
        raise ConfigError(f"Expected {name}= as {' or '.join(names)}, got {_shown(value)}.")


def _alternatives(annotation: Any) -> set[Any]:
    several = get_origin(annotation) in (Union, UnionType)
    return set(get_args(annotation)) if several else {annotation}


def _is_one(value: Any, types: set[Any]) -> bool:
    # A truth value would count as a number, and a whole number is a number.
    wider = types | ({int} if float in types else set())
    return type(value) in wider


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else kind_of(value)
