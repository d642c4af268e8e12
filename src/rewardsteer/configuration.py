"""Typed settings from a YAML file and dotted overrides; the resolved form is saved with each run.

OmegaConf reads YAML, merges ``a.b=c`` flags and resolves interpolations; pydantic checks types and
refuses unknown keys. Each part of the package defines its own config class.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from rewardsteer.errors import ConfigError
from rewardsteer.setting_faults import Origin, explain

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelMetaclass
else:
    _ModelMetaclass = type(BaseModel)


class _Explained(_ModelMetaclass):
    """Raises `ConfigError` where settings that Python code gives by name are wrong. Settings within
    others do not pass here, so their errors are explained once, with their full names."""

    def __call__(self: Any, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise ConfigError(explain(self, error, values, Origin(None, ()))) from error


class Config(BaseModel, metaclass=_Explained):
    """Base of all settings: immutable, unknown keys refused. A wrong one is a `ConfigError`.

    Attributes:
        aliases: other libraries' names of settings → the names here; suggested in the error message
            about an unknown setting.
        renamed: former name of a setting → current name, which the error message gives.
    """

    aliases: ClassVar[dict[str, str]] = {}
    renamed: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would accept true as 1.
        if isinstance(value, bool) and info.field_name is not None:
            kinds = set(_alternatives(cls.model_fields[info.field_name].annotation))
            if kinds & {int, float} and not kinds & {bool, Any}:
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


# The largest seed that every library's random generator accepts.
MOST_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Count = Annotated[int, Field(ge=1)]
NonNegativeFinite = Annotated[float, Field(ge=0, allow_inf_nan=False)]

C = TypeVar("C", bound=Config)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The alternative types of an annotation."""
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
        file: file that a mapping of settings was read from, for messages.

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
            # Unlike merging a second mapping, this updates list items: sources.0.path=x.
            OmegaConf.update(merged, name, value, merge=False, force_add=True)
        subject = "The settings"
        values = OmegaConf.to_container(merged, resolve=True)
    except ConfigError:
        raise
    # Deep nesting and invalid values raise many unrelated kinds of errors in the parsers.
    except (
        OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError,
        RecursionError,
    ) as error:
        if isinstance(error, IndexError):
            raise ConfigError(
                f"{subject} names an item of a list that has fewer; give the whole list, as "
                "name=[…]."
            ) from error
        raise ConfigError(f"{subject} cannot be read: {_fault(error)}.") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        file = source if isinstance(source, Path) else file
        origin = Origin(file, [item.partition("=")[0] for item in overrides])
        raise ConfigError(explain(kind, error, values, origin)) from error


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, which would take the last one of equal keys in silence."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Called by PyYAML."""
        node, seen = super().compose_mapping_node(anchor), set[Any]()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` if the file is missing or not a mapping."""
    try:
        values = _UniqueKeys(path.read_text(encoding="utf-8-sig")).get_single_data()
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The configuration file {path} is not valid YAML, {_fault(error)}; correct the "
            "file there."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(values).__name__}.")
    return values


def _fault(error: Exception) -> str:
    """A parser's error message in one line, for YAML with line and column."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        found = ", ".join(one for one in (error.problem, error.context) if one)
        return f"line {mark.line + 1}, column {mark.column + 1}: {found}"
    return " ".join(str(error).split()).rstrip(".")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved settings as YAML."""
    from rewardsteer.outputs import write_text

    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
