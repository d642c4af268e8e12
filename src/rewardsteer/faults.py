"""Translation of pydantic's errors into messages: the path, what was expected, what came.

Settings, rows of files and HTTP requests share it. They differ in the names of types (YAML has
lists, JSON has arrays) and in the way values are shown.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from rewardsteer.registry import nearest

Path = tuple[int | str, ...]

# pydantic's error types → keys of `Language`'s names of types.
_TYPES = MappingProxyType({
    "string_type": "text", "string_unicode": "text", "path_type": "text", "list_type": "list",
    "tuple_type": "list", "set_type": "list", "dict_type": "mapping", "model_type": "mapping",
    "model_attributes_type": "mapping", "int_type": "whole", "int_parsing": "whole",
    "int_from_float": "whole", "int_parsing_size": "smaller", "float_type": "number",
    "float_parsing": "number", "finite_number": "finite", "bool_type": "truth",
    "bool_parsing": "truth", "none_required": "null",
})
_BOUNDS = MappingProxyType({
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
})
# Bounds that only keep computations finite, so messages leave them out.
_TINY = 1e-3
_SHOWN = 60


class Language(NamedTuple):
    """Names of types in messages, and the function that shows a value."""

    types: Mapping[str, str]
    show: Callable[[Any], str]


class Fault(NamedTuple):
    """One invalid or missing value.

    Attributes:
        path: keys and indices that lead to it.
        kinds: pydantic's error types; several where the value may have several forms.
        words: what was expected and what came, without a full stop; may end with a question.
        came: the value; for a missing value its container.
    """

    path: Path
    kinds: tuple[str, ...]
    words: str
    came: Any

    @property
    def name(self) -> str:
        """The path as one text."""
        return ".".join(map(str, self.path))

    @property
    def sentence(self) -> str:
        """The words with a full stop."""
        return self.words if self.words.endswith("?") else f"{self.words}."


def show(value: Any) -> str:
    """A value in a message: a short one in full, a long one by its type and contents."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    if len(text) <= _SHOWN:
        return text
    if isinstance(value, str):
        return f"{value[: _SHOWN // 2]!r} and {len(value) - _SHOWN // 2} characters more"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value))}"[:_SHOWN]
    return f"a list of {len(value)}" if isinstance(value, Sequence) else f"a {type(value).__name__}"


PLAIN = Language(MappingProxyType({
    "text": "text", "list": "a list", "mapping": "a mapping", "whole": "a whole number",
    "smaller": "a smaller whole number", "number": "a number", "finite": "a finite number",
    "truth": "true or false", "null": "null",
}), show)


# Placeholder for checked values that the caller does not have.
UNKNOWN = object()


def faults(
    errors: Sequence[Any], given: Any = UNKNOWN, language: Language = PLAIN
) -> list[Fault]:
    """One `Fault` for each invalid value.

    Args:
        errors: ``ValidationError.errors()``.
        given: the checked values. Without them a path ends at its first key, because pydantic's
            names of union members cannot be told from keys.
        language: of the messages.
    """
    placed: dict[tuple[Path, int], list[Any]] = {}
    for error in errors:
        placed.setdefault((_path(error, given), id(error["input"])), []).append(error)
    found = []
    for (path, _), own in placed.items():
        # Among the forms of a union, only the errors of the best match (the deepest) are kept.
        if any(len(other) > len(path) and other[: len(path)] == path for other, _ in placed):
            continue
        kinds = tuple(error["type"] for error in own)
        found.append(Fault(path, kinds, _words(own, language), own[0]["input"]))
    return found


def first_fault(error: ValidationError, given: Any = UNKNOWN) -> str:
    """The first fault with its path: ``prompt.0.content: expected text, got 3``."""
    one = faults(error.errors(), given)[0]
    return f"{one.name}: {one.words}" if one.path else one.words


M = TypeVar("M", bound=BaseModel)


def checked(kind: type[M], values: Any) -> M:
    """A record or config object made from values; raises `ValueError` with the first fault."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(first_fault(error, values)) from error


def _path(error: Any, given: Any) -> Path:
    """The parts of an error's path that lead into the given values, without union members."""
    path: list[int | str] = []
    here, loc = given, error["loc"]
    for number, part in enumerate(loc):
        inside = isinstance(here, Mapping) and part in here
        listed = isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        if inside or listed:
            here = here[part]
            path.append(part)
        # A missing key, or one with an alias.
        elif (number == 0 and (given is UNKNOWN or isinstance(given, Mapping))) or (
            number == len(loc) - 1 and error["type"] == "missing"
        ):
            path.append(part)
            here = None
    return tuple(path)


def _words(errors: Sequence[Any], language: Language) -> str:
    """What was expected of a value, in all its allowed forms, and what came."""
    came = errors[0]["input"]
    exact = [one for one in errors if one["type"] not in _TYPES and one["type"] != "literal_error"]
    if exact:
        return _exact(exact[0], came, language)
    choices = [one["ctx"]["expected"] for one in errors if one["type"] == "literal_error"]
    types = [language.types[_TYPES[one["type"]]] for one in errors if one["type"] in _TYPES]
    expected = " or ".join(dict.fromkeys([*choices, *types]))
    hint = nearest(came, re.findall(r"'([^']*)'", " ".join(choices))) if (
        choices and isinstance(came, str)
    ) else ""
    return f"expected {expected}, got {language.show(came)}{hint and '.' + hint}"


def _exact(error: Any, came: Any, language: Language) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        least = context[bound]
        if bound == "ge" and isinstance(least, int | float) and 0 < least < _TINY:
            words, least = "more than", 0
        least = f"{least:g}" if isinstance(least, float) else str(least)
        return f"expected {words} {least}, got {language.show(came)}"
    counted = {
        "too_short": ("at least", "min_length", "of them"),
        "too_long": ("at most", "max_length", "of them"),
        "string_too_long": ("at most", "max_length", "characters"),
    }
    if kind in counted:
        words, bound, what = counted[kind]
        return f"expected {words} {context[bound]} {what}, got {len(came)}"
    if kind == "string_too_short":
        return "expected some text, got none"
    if kind == "missing":
        return "this is required and was not given"
    if kind == "extra_forbidden":
        return "this name is not known"
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    message = re.sub(r"^Input should (be|have)( a valid)?", "expected", message)
    came_alone = came is None or isinstance(came, bool | int | float | str)
    if not came_alone or message.endswith("?") or language.show(came) in message:
        return message
    return f"{message}, got {language.show(came)}"
