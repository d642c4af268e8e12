"""Typed settings: YAML file, then dotted overrides, checked; the resolved form is saved with runs.

OmegaConf reads YAML, merges ``a.b=c`` flags and resolves interpolations; pydantic checks types and
refuses unknown keys. Each part of the package owns the config class of what it builds.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticKnownError

from rewardsteer.errors import ConfigError
from rewardsteer.faults import Fault, faults
from rewardsteer.registry import nearest


class Config(BaseModel):
    """Base of all settings: immutable, unknown keys refused.

    Attributes:
        aliases: names that other libraries give to settings, with the names here; suggested when
            somebody types one.
        renamed: former names of settings, with the names now; refused with the new name.
    """

    aliases: ClassVar[dict[str, str]] = {}
    renamed: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1.
        if isinstance(value, bool) and info.field_name is not None:
            kinds = set(_alternatives(cls.model_fields[info.field_name].annotation))
            if kinds & {int, float} and not kinds & {bool, Any}:
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


# What every library's generator takes.
MOST_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Count = Annotated[int, Field(ge=1)]
NonNegativeFinite = Annotated[float, Field(ge=0, allow_inf_nan=False)]

C = TypeVar("C", bound=Config)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types of which a value may be any."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for one in get_args(annotation):
            yield from _alternatives(one)
    else:
        yield annotation


def load_config(
    kind: type[C], source: Path | dict[str, Any], overrides: Sequence[str] = (), *,
    file: Path | None = None,
) -> C:
    """Read and check settings.

    Args:
        kind: the config class to build.
        source: a YAML file, or the settings themselves.
        overrides: ``dotted.name=value`` items, YAML values; applied last.
        file: where settings that are a mapping were read from, for messages.

    Raises:
        ConfigError: unreadable file, malformed override, unknown key (the nearest known one is
            suggested) or value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for item, after in zip(overrides, [*overrides[1:], "="], strict=False):
        if "=" not in item:
            value = "VALUE" if "=" in after else after
            raise ConfigError(
                f"Expected a setting as dotted.name=value, got {item!r}; write "
                f"'{item}={value}'."
            )
    subject = "The settings"
    try:
        base = source if isinstance(source, dict) else read_yaml(source)
        merged = OmegaConf.create(base)
        for item in overrides:
            subject = f"The setting {item!r}"
            name, _, text = item.partition("=")
            value = OmegaConf.from_dotlist([f"value={text}"])["value"]
            # Unlike merging a second mapping, this reaches into lists: sources.0.path=x.
            OmegaConf.update(merged, name, value, merge=False, force_add=True)
        subject = "The settings"
        values = OmegaConf.to_container(merged, resolve=True)
    except ConfigError:
        raise
    # Hostile nesting and impossible values come out of the parsers as many unrelated kinds.
    except (
        OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{subject} cannot be read: {_fault(error)}.") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        file = source if isinstance(source, Path) else file
        origin = _Origin(file, [item.partition("=")[0] for item in overrides])
        raise ConfigError(_explain(kind, error, values, origin)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` when it is missing or is no mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The configuration file {path} is not valid YAML, {_fault(error)}; mend the file "
            "there."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(values).__name__}.")
    return values


def _fault(error: Exception) -> str:
    """What a parser complains of, in one line; of YAML with the line and column."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        found = ", ".join(one for one in (error.problem, error.context) if one)
        return f"line {mark.line + 1}, column {mark.column + 1}: {found}"
    return " ".join(str(error).split()).rstrip(".")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved settings as YAML."""
    from rewardsteer.outputs import write_text

    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


class _Origin(NamedTuple):
    """Where settings were given: a file, and changes of what it says, by name."""

    file: Path | None
    changed: Sequence[str]

    def of(self, name: str) -> str:
        """`` in FILE`` where the setting is from there."""
        begun = (one for one in self.changed if f"{name}.".startswith(f"{one}.") or (
            one.startswith(f"{name}.")
        ))
        return "" if self.file is None or any(begun) else f" in {self.file}"


def _explain(kind: type[BaseModel], error: ValidationError, given: Any, origin: _Origin) -> str:
    sentences = []
    for fault in faults(error.errors(), given):
        name, place = fault.name, origin.of(fault.name)
        if "extra_forbidden" in fault.kinds:
            sentences.append(_unknown(kind, fault.path, place))
        elif "missing" in fault.kinds:
            file = "" if origin.file is None else f" or add it to {origin.file}"
            sentences.append(
                f"The setting {name!r} is required and was not given; write {name}=VALUE{file}."
            )
        else:
            subject = f"The setting {name!r}{place} is wrong" if name else (
                f"The settings{place} do not fit"
            )
            sentences.append(f"{subject}: {fault.sentence}{_advice(kind, fault)}")
    return " ".join(sentences)


def _unknown(kind: type[BaseModel], path: Sequence[int | str], place: str) -> str:
    *above, leaf = path
    name = ".".join(map(str, path))
    new = getattr(_class_at(kind, above), "renamed", {}).get(leaf)
    if new is not None:
        return f"The setting {name!r}{place} is now called {'.'.join(map(str, (*above, new)))!r}."
    known = _known_fields(kind, above)
    return f"Unknown setting {name!r}{place}.{_hint(kind, path, known)} Known here: " + (
        f"{', '.join(known)}."
    )


def _advice(kind: type[BaseModel], fault: Fault) -> str:
    """How a value of the expected form is written, where its name does not say that."""
    parts = _known_fields(kind, fault.path)
    if {"model_type", "model_attributes_type"} & set(fault.kinds) and parts:
        return f" Its parts are {', '.join(f'{fault.name}.{part}' for part in parts)}."
    if {"list_type", "tuple_type"} & set(fault.kinds):
        return f" Write a list: {fault.name}=[…]."
    return ""


def _hint(kind: type[BaseModel], place: Sequence[int | str], known: list[str]) -> str:
    """What was probably meant: another library's name for a setting, the same name in another
    section, or the nearest name in this one or another."""
    *above, leaf = (str(part) for part in place)
    here = _class_at(kind, place[:-1])
    if here is not None and (alias := getattr(here, "aliases", {}).get(leaf)) is not None:
        inside = alias.split("=")[0] in known
        return f" Did you mean {'.'.join([*above, alias]) if inside else alias!r}?"
    everywhere: dict[str, list[str]] = {}
    for name in _all_settings(kind):
        everywhere.setdefault(name.rpartition(".")[2], []).append(name)
    if len(everywhere.get(leaf, ())) == 1:
        return f" Did you mean {everywhere[leaf][0]!r}?"
    close = difflib.get_close_matches(leaf, [*known, *everywhere], n=1, cutoff=0.5)
    if not close or close[0] in known:
        return nearest(leaf, known)
    return f" Did you mean {' or '.join(map(repr, everywhere[close[0]]))}?"


def _all_settings(kind: type[BaseModel]) -> list[str]:
    """Dotted names of all settings that are not within lists."""
    found = []
    for name, field in kind.model_fields.items():
        found.append(name)
        inner = _config_class(field.annotation)
        if inner is not None and "list" not in str(field.annotation):
            found += [f"{name}.{one}" for one in _all_settings(inner)]
    return found


def _known_fields(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Field names of the config class that ``path`` leads to from ``kind``."""
    found = _class_at(kind, path)
    return [] if found is None else sorted(found.model_fields)


def _class_at(kind: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    current: Any = kind
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                continue
            current = _config_class(field.annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current
    return None


def _config_class(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _config_class(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None
