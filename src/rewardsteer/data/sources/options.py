"""Checks of sources' options, before a source is read."""

import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from rewardsteer.errors import ConfigError
from rewardsteer.faults import faults
from rewardsteer.registry import check_options

# The remedy where a row lacks a field.
RENAMING = (
    "columns of other names are given as 'sources.0.options.fields={OURS: THEIRS}' (0: the first "
    "source)"
)


def check_choice(option: str, value: object, known: Collection[str]) -> None:
    """Raise `ConfigError` where an option's value is not one of ``known``."""
    if value not in known:
        raise ConfigError(f"Unknown value {value!r} of {option}; known: {', '.join(known)}.")


def check_fields(fields: Collection[str], known: Collection[str]) -> None:
    """Raise `ConfigError` where ``fields`` names a field that the source does not have."""
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(f"Unknown field(s) {', '.join(unknown)}; known: {', '.join(known)}.")


def checked_options(
    name: str, load: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """A source's options, converted to the types that its function declares.

    Args:
        name: of the source, for messages.
        load: the source's function; options without a declared type are passed on unchanged.
        options: from the settings.

    Raises:
        ConfigError: an unknown option, a value of another type, or out of range.
    """
    check_options(f"The source {name!r}", load, options, besides=("split", "path", "reading"))
    try:
        hints = typing.get_type_hints(load, include_extras=True)
    except (NameError, TypeError):
        hints = {}  # A function from outside may name types that cannot be resolved.
    checked = dict(options)
    for option in options.keys() & hints.keys():
        try:
            checked[option] = TypeAdapter(hints[option]).validate_python(options[option])
        except PydanticSchemaGenerationError:
            continue
        except ValidationError as error:
            raise ConfigError(
                f"The option {option!r} of the source {name!r} is wrong: "
                f"{faults(error.errors(), options[option])[0].sentence}"
            ) from error
    return checked
